"""What the command line changes in a suite, or makes a suite of, checked by the suite's rules."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from reformer_bench.run.expand import expand
from reformer_bench.schema.case import Case, DeviceKind
from reformer_bench.schema.errors import InputError, did_you_mean, validated
from reformer_bench.schema.model import PRESETS
from reformer_bench.schema.suite import Suite
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

    ``model.x`` is set in every variant, above its preset; any other key is the suite's own, such as
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


def preset_names(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the presets asked for; ``all`` stands for every one."""
    return tuple(PRESETS) if "all" in asked else tuple(dict.fromkeys(asked))


def cases_of_presets(
    presets: Iterable[str],
    kind: DeviceKind,
    *,
    seq_len: str,
    batch: int,
    workload: str,
    optimizer: str,
    dtype: str | None,
    settings: Sequence[str],
) -> list[Case]:
    """Return the cases of presets, changed as by ``--set``, preset by preset.

    ``max_length`` is the longest length, at least 65,536, unless it is set. Raises InputError that
    names option and value.
    """
    lengths = _lengths(seq_len)
    model: dict[str, Any] = {"max_length": max(_LEAST_MAX_LENGTH, *lengths)}
    if dtype is not None:
        model["dtype"] = dtype
    names = list(presets)
    for name in names:
        if name not in PRESETS:
            raise InputError(
                f"--preset: {name!r} is not a preset{did_you_mean(name, [*PRESETS, 'all'])} "
                f"(allowed: {', '.join(PRESETS)}, or all)"
            )
    data = {
        "name": "ad-hoc",
        "description": "from the command line",
        "lengths": lengths,
        "batches": [batch],
        "workloads": [workload],
        "optimizer": optimizer,
        "model": model,
        "variants": {name: {"preset": name} for name in names},
    }
    suite = with_settings(validated(Suite, data, where="options"), settings)
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
        for variant in data["variants"].values():
            variant.setdefault("model", {})[".".join(rest)] = value
        return
    if first == "variants" and rest:
        _check_variant(data["variants"], rest[0], option="--set")
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
