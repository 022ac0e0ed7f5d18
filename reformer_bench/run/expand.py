"""Expansion of a suite, on a device, into the ordered list of its cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reformer_bench.peers.huggingface_config import SHAPING, checkpoint_fields
from reformer_bench.schema.case import Case, DeviceKind, Optimizer, Workload, device_kind
from reformer_bench.schema.errors import InputError, validated
from reformer_bench.schema.model import PRESETS, ModelConfig, Positions
from reformer_bench.schema.suite import Suite, Variant, fields_of


def check_device(name: str) -> None:
    """Raise InputError unless the name is auto, cpu, cuda or cuda:N."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise InputError(f"--device: {name!r} is not one of auto, cpu, cuda, cuda:N")


def expand(suite: Suite, device: str) -> list[Case]:
    """Return every case of a suite on a device, each once.

    The shortest come first, and all variants of a length before the next length, so that a run that
    is cut short still compares the variants. Raises InputError naming variant and field where a
    model is impossible.
    """
    kind = device_kind(device)
    models = {name: variant_model(suite, name, kind) for name in suite.variants}
    checkpoints = {name: variant_checkpoint(suite, name, kind) for name in suite.variants}
    cases: dict[str, Case] = {}
    for length in suite.lengths_on(kind):
        for workload in suite.workloads:
            for batch in _batches(suite, length):
                for name, variant in suite.variants.items():
                    _check_length(suite, name, models[name], workload, length)
                    case = Case(
                        suite=suite.name,
                        variant=name,
                        workload=workload,
                        implementation=variant.implementation,
                        model=models[name],
                        checkpoint=checkpoints[name],
                        optimizer=_optimizer(suite, workload),
                        batch=batch,
                        length=length,
                        device=device,
                        seed=suite.seed,
                    )
                    cases.setdefault(case.id, case)
    return list(cases.values())


def expand_parts(parts: Iterable[Suite], device: str) -> list[Case]:
    """Return every case of several suites, suite by suite."""
    return [case for part in parts for case in expand(part, device)]


def variant_model(suite: Suite, name: str, kind: DeviceKind) -> ModelConfig:
    """Return the model of a variant, put together from suite, device, preset, checkpoint and
    variant.

    Raises InputError where the parts don't fit together.
    """
    variant = suite.variants[name]
    layers = _layers(suite, name, variant, kind)
    checkpoint = variant_checkpoint(suite, name, kind)
    if checkpoint is not None:
        layers.insert(-1, ("checkpoint", _saved_fields(suite, name, checkpoint)))
    fields: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for place, table in layers:
        fields.update(table)
        origin.update(dict.fromkeys(table, place))
    fields.pop("checkpoint", None)
    return validated(
        ModelConfig, fields, where=f"suite {suite.name}, variant {name}", name=_written(origin)
    )


def variant_checkpoint(suite: Suite, name: str, kind: DeviceKind) -> str | None:
    """Return the folder that a variant's weights come from, as an absolute path; None for random
    weights.
    """
    found = None
    for _, table in _layers(suite, name, suite.variants[name], kind):
        found = table.get("checkpoint", found)
    return None if found is None else str(Path(found).expanduser().resolve())


def _saved_fields(suite: Suite, name: str, checkpoint: str) -> dict[str, Any]:
    """Return the model fields of a checkpoint, once it is sure that the variant can be measured
    with it.

    A variant must not be another model than its name and its fields say.
    """
    variant = suite.variants[name]
    where = f"suite {suite.name}, variant {name}"
    saved = checkpoint_fields(Path(checkpoint))
    if variant.implementation != "native":
        raise InputError(
            f"{where}: model.checkpoint needs implementation = 'native', not "
            f"{variant.implementation!r}; leave the variant out with --variants"
        )
    preset = PRESETS.get(variant.preset or "", {})
    if preset and (preset["attention"], preset["residual"]) != (("lsh",), "reversible"):
        raise InputError(
            f"{where}: model.checkpoint holds a reversible Reformer, which preset "
            f"{variant.preset!r} is not; leave the variant out with --variants"
        )
    for field, value in fields_of(variant.model).items():
        if field in SHAPING and value != saved.get(field):
            raise InputError(
                f"{where}: model.{field} = {value!r} differs from the checkpoint's "
                f"{saved.get(field)!r}, which its weights decide"
            )
    return saved


def _layers(
    suite: Suite, name: str, variant: Variant, kind: DeviceKind
) -> list[tuple[str, dict[str, Any]]]:
    """Return what sets model fields, weakest first, each with the place it was written in."""
    return [
        ("model", fields_of(suite.model)),
        (f"device.{kind}.model", fields_of(suite.on(kind).model)),
        (f"preset {variant.preset}", PRESETS.get(variant.preset or "", {})),
        (f"variants.{name}.model", fields_of(variant.model)),
    ]


def _written(origin: dict[str, str]) -> Callable[[str], str]:
    def name(key: str) -> str:
        place = origin.get(key.split(".")[0])
        return key if place is None else f"{place}.{key}"

    return name


def _batches(suite: Suite, length: int) -> tuple[int, ...]:
    try:
        return suite.batches_at(length)
    except ValueError as error:
        raise InputError(f"suite {suite.name}: {error}") from None


def _optimizer(suite: Suite, workload: Workload) -> Optimizer:
    # The other workloads step no optimizer, so it must not make two cases of one.
    return suite.optimizer if workload == "train_step" else "none"


def _check_length(
    suite: Suite, name: str, model: ModelConfig, workload: Workload, length: int
) -> None:
    if workload == "attention" or model.positions is Positions.NONE:
        return
    if length > model.max_length:
        raise InputError(
            f"suite {suite.name}, variant {name}: length {length} is more than "
            f"model.max_length = {model.max_length}"
        )
