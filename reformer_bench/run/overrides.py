"""What the command line changes in a suite, or makes a suite of, checked by the suite's rules."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from reformer_bench.run.expand import expand
from reformer_bench.schema.case import Case, DeviceKind
from reformer_bench.schema.errors import InputError, did_you_mean, validated
from reformer_bench.schema.model import PRESETS
from reformer_bench.schema.suite import Suite
from reformer_bench.schema.target import TargetName, hash_of, parse_target
from reformer_bench.schema.units import parse_lengths

_LEAST_MAX_LENGTH = 65_536


def with_lengths(suite: Suite, text: str) -> Suite:
    """Return the suite with the lengths of ``--seq-len``, on every device."""
    data = _data(suite)
    _set_lengths(data, list(_lengths(text)))
    return validated(Suite, data, where="--seq-len")


def with_variants(suite: Suite, names: Iterable[str]) -> Suite:
    """Return the suite with only the variants named, in the suite's order."""
    wanted = {name.strip() for name in names if name.strip()}
    for name in sorted(wanted):
        _check_variant(suite.variants, name, option="--variants")
    if not wanted:
        raise InputError(f"--variants: names at least one of: {', '.join(suite.variants)}")
    data = _data(suite)
    data["variants"] = {k: v for k, v in data["variants"].items() if k in wanted}
    if data.get("baseline_variant") not in wanted:
        data.pop("baseline_variant", None)
    return validated(Suite, data, where="--variants")


def with_case_timeout(suite: Suite, seconds: float) -> Suite:
    """Return the suite with another time limit for each case, on every device."""
    data = _data(suite)
    for kind in get_args(DeviceKind):
        data.setdefault("device", {}).setdefault(kind, {})["case_timeout_s"] = seconds
    return validated(Suite, data, where="--case-timeout", name=lambda key: key.rpartition(".")[2])


def with_settings(suite: Suite, settings: Sequence[str]) -> Suite:
    """Return the suite after each ``--set key=value``, one after another.

    ``model.x`` is set in every variant of this package's models, above its preset; ``config.x`` and
    ``args.x`` in every target of their kind; any other key is the suite's own, such as
    ``batches``, ``seed``, ``device.cpu.sample_time_s`` or ``variants.reformer.model.n_hashes``.
    Values are written as in TOML; what isn't TOML is text.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"--set: {setting!r} is not key=value, for example model.n_hashes=8")
        data = _data(suite)
        _put(data, key, _value(text.strip()))
        suite = validated(Suite, data, where="--set", name=_as_written(key))
    return suite


def model_names(presets: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the models asked for: presets, of which ``all`` stands for every one, and targets.

    Raises InputError for a name that is neither.
    """
    for name in presets:
        if name not in (*PRESETS, "all"):
            raise InputError(
                f"--preset: {name!r} is not a preset{did_you_mean(name, [*PRESETS, 'all'])} "
                f"(allowed: {', '.join(PRESETS)}, or all; --model takes any other model)"
            )
    chosen = PRESETS if "all" in presets else presets
    return tuple(dict.fromkeys((*chosen, *targets)))


def variants_of(models: Iterable[str], dtype: str | None = None) -> dict[str, dict[str, Any]]:
    """Return a suite's ``variants``: each preset, and each target under a short name of its own.

    Raises InputError for a text that is neither.
    """
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        if model in PRESETS:
            found[model] = {"preset": model}
            continue
        name = parse_target(model)
        if name.path is not None:
            # Said here, where the option is known.
            hash_of(name.path)
        short = _short_name(name)
        unique, number = short, 2
        while unique in found:
            unique, number = f"{short}-{number}", number + 1
        found[unique] = {"model_from": str(name)}
        if dtype is not None:
            found[unique]["dtype"] = dtype
    return found


def _short_name(name: TargetName) -> str:
    """Return what a target is called in tables: its factory, its type, or its folder's name."""
    if name.factory:
        return name.factory.rpartition(".")[2]
    place = Path(name.place)
    if place.name == "config.json":
        place = place.resolve().parent
    return place.resolve().name if name.path is not None and place.is_dir() else place.stem


def with_models(suite: Suite, models: Iterable[str]) -> Suite:
    """Return the suite with the models of ``--model`` in place of its variants."""
    data = _data(suite)
    data["variants"] = variants_of(models)
    data.pop("baseline_variant", None)
    return validated(Suite, data, where="--model")


def suite_of_models(
    models: Sequence[str],
    *,
    seq_len: str,
    batch: int = 1,
    workload: str = "train_step",
    optimizer: str = "adam",
    dtype: str | None = None,
    settings: Sequence[str] = (),
) -> Suite:
    """Return a suite of presets and targets from the command line, changed as by ``--set``.

    Its name is made of the first model's, and says how many more there are. ``max_length`` of this
    package's models is the longest length, at least 65,536, unless it is set. Raises InputError
    that names option and value.
    """
    lengths = _lengths(seq_len)
    model: dict[str, Any] = {"max_length": max(_LEAST_MAX_LENGTH, *lengths)}
    if dtype is not None:
        model["dtype"] = dtype
    variants = variants_of(models, dtype)
    name = re.sub(r"[^a-z0-9_-]+", "-", next(iter(variants)).lower()).strip("-_") or "model"
    data = {
        "name": name if len(variants) == 1 else f"{name}-and-{len(variants) - 1}-more",
        "description": "from the command line",
        "lengths": lengths,
        "batches": [batch],
        "workloads": [workload],
        "optimizer": optimizer,
        "model": model,
        "variants": variants,
    }
    return with_settings(validated(Suite, data, where="options"), settings)


def cases_of_models(models: Sequence[str], kind: DeviceKind, **options: Any) -> list[Case]:
    """Return the cases of ``suite_of_models``, model by model."""
    suite = suite_of_models(models, **options)
    order = list(suite.variants)
    return sorted(expand(suite, kind), key=lambda case: (order.index(case.variant), case.length))


def _data(suite: Suite) -> dict[str, Any]:
    return suite.model_dump(mode="json", exclude_unset=True)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key in a suite's data."""
    first, *rest = key.split(".")
    if first == "model" and rest:
        own = [one for one in data["variants"].values() if "model_from" not in one]
        if not own and data["variants"]:
            raise InputError(
                f"--set: {key!r} is for models of this package, and there is none; of other "
                "models, config.… sets fields (hf:TYPE) and args.… arguments (FILE.py:FACTORY)"
            )
        for variant in own:
            variant.setdefault("model", {})[".".join(rest)] = value
        return
    if first == "variants" and rest:
        _check_variant(data["variants"], rest[0], option="--set")
    if first in ("config", "args") and rest:
        _put_in_targets(data, key, first, rest, value)
        return
    if first in ("train", "eval") and rest:
        # Above what a variant sets itself.
        for variant in data["variants"].values():
            variant.get(first, {}).pop(rest[0], None)
    if key == "lengths":
        _set_lengths(data, value)
        return
    for one, other in (("batches", "tokens"), ("tokens", "batches")):
        if key == one:
            data.pop(other, None)
    table = data
    for part in key.split(".")[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"--set: {key!r} is no key: {part!r} is not a table")
    table[key.split(".")[-1]] = value


def _put_in_targets(
    data: dict[str, Any], key: str, table: str, path: list[str], value: Any
) -> None:
    """Set a field of the configuration, or an argument of the factory, of every target that has
    such ones; InputError where none has.
    """
    found = False
    for variant in data["variants"].values():
        target = variant.get("model_from")
        if target is None or parse_target(target).runs_code != (table == "args"):
            continue
        found = True
        inner = variant.setdefault(table, {})
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InputError(f"--set: {key!r} is no key: {part!r} is not a table")
        inner[path[-1]] = value
    if not found:
        needs = "FILE.py:FACTORY" if table == "args" else "hf:TYPE"
        raise InputError(f"--set: {key!r} is for models named by {needs}, and there is none")


def _set_lengths(data: dict[str, Any], lengths: Any) -> None:
    data["lengths"] = lengths
    for table in data.get("device", {}).values():
        table.pop("lengths", None)


def _check_variant(variants: Iterable[str], name: str, *, option: str) -> None:
    names = list(variants)
    if name not in names:
        raise InputError(
            f"{option}: there is no variant {name!r}{did_you_mean(name, names)} "
            f"(allowed: {', '.join(names)})"
        )


def _as_written(key: str) -> Callable[[str], str]:
    """Return what turns the place of an error back into the key that the user wrote."""

    def name(place: str) -> str:
        parts = place.split(".")
        spread = key.startswith("model.") and parts[0] == "variants"
        return ".".join(parts[2:]) if spread else place

    return name
