"""Expansion of suites, on a device, into the ordered list of their cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reformer_bench.peers import installed
from reformer_bench.peers.huggingface_config import SHAPING, checkpoint_fields
from reformer_bench.schema.case import Case, DeviceKind, Workload, device_kind
from reformer_bench.schema.errors import InputError, validated
from reformer_bench.schema.model import PRESETS, ModelConfig, Positions
from reformer_bench.schema.suite import DeviceTable, Suite, Variant, fields_of
from reformer_bench.schema.target import Implementation, TargetConfig, target_config
from reformer_bench.schema.training import Evaluation, Training


@dataclass(frozen=True)
class Part:
    """A suite on one device: its cases, and the limits that they are run under."""

    suite: Suite
    cases: tuple[Case, ...]
    limits: DeviceTable
    expected_s: float
    """How long the suite says that it takes; 0 where it doesn't say."""


@dataclass(frozen=True)
class Plan:
    """All that a run is to measure on one device, expanded once."""

    suite: Suite
    """The suite asked for, which may stand for several."""
    device: str
    parts: tuple[Part, ...]

    @property
    def cases(self) -> list[Case]:
        """Every case, part by part."""
        return [case for part in self.parts for case in part.cases]

    def limit_s(self, case: Case) -> float:
        """Return the time limit of a case of one of the parts."""
        part = next(part for part in self.parts if part.suite.name == case.suite)
        return part.limits.case_timeout_s

    def on(self, device: str) -> Plan:
        """Return the plan of the same suites on a device."""
        if device == self.device:
            return self
        return make_plan(self.suite, [part.suite for part in self.parts], device)


def make_plan(suite: Suite, parts: Sequence[Suite], device: str) -> Plan:
    """Expand the suites that a suite stands for: itself, or those that it includes.

    Raises InputError naming variant and field where a model is impossible.
    """
    kind = device_kind(device)
    minutes = [part.expected_minutes.get(kind, 0.0) for part in parts]
    return Plan(
        suite,
        device,
        tuple(
            Part(part, tuple(expand(part, device)), part.on(kind), 60 * expected)
            for part, expected in zip(parts, minutes, strict=True)
        ),
    )


def check_device(name: str) -> None:
    """Raise InputError unless the name is auto, cpu, cuda or cuda:N."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise InputError(f"--device: {name!r} is not one of auto, cpu, cuda, cuda:N")


def check_installed(suite: Suite) -> None:
    """Raise InputError, before anything is measured, where a variant's library is missing."""
    for name, variant in suite.variants.items():
        saved = (suite.model, variant.model, *(table.model for table in suite.device.values()))
        needs = [variant.implementation]
        if any("checkpoint" in fields_of(table) for table in saved):
            needs.append("transformers")
        if variant.target is not None and not variant.target.runs_code:
            needs.append("transformers")
        try:
            for library in needs:
                installed.check_installed(library)
        except InputError as error:
            raise InputError(
                f"variant {name}: {error}; --variants can leave the variant out"
            ) from None


def expand(suite: Suite, device: str) -> list[Case]:
    """Return every case of a suite on a device, each once.

    The shortest come first, and all variants of a length before the next length, so that a run that
    is cut short still compares the variants. Raises InputError naming variant and field where a
    model is impossible.
    """
    kind = device_kind(device)
    models = {name: _model_of(suite, name, kind) for name in suite.variants}
    cases: dict[str, Case] = {}
    for length in suite.lengths_on(kind):
        for workload in suite.workloads:
            for batch in suite.batches_at(length):
                for name, variant in suite.variants.items():
                    model, checkpoint = models[name]
                    _check_fits(suite, name, model, workload, length)
                    case = Case(
                        suite=suite.name,
                        variant=name,
                        workload=workload,
                        implementation=_implementation(variant),
                        model=model,
                        checkpoint=checkpoint,
                        **switches(suite, name, workload),
                        batch=batch,
                        length=length,
                        device=device,
                        seed=suite.seed,
                    )
                    cases.setdefault(case.id, case)
    return list(cases.values())


def _implementation(variant: Variant) -> Implementation:
    return variant.implementation if variant.model_from is None else "target"


def _model_of(
    suite: Suite, name: str, kind: DeviceKind
) -> tuple[ModelConfig | TargetConfig, str | None]:
    variant = suite.variants[name]
    if variant.model_from is None:
        return variant_model(suite, name, kind)
    given = {**variant.args, **variant.config}
    return target_config(
        variant.model_from,
        given,
        dtype=variant.dtype or "float32",
        option=f"suite {suite.name}, variant {name}: model_from",
    ), None


def switches(suite: Suite, name: str, workload: Workload) -> dict[str, Any]:
    """Return the fields of a case that say how a variant is trained and evaluated.

    What a workload doesn't do is left out, so that it makes no two cases of one: the others step
    no optimizer. Raises InputError for a switch that a model of this package doesn't have.
    """
    variant = suite.variants[name]
    tables = [fields_of(table) for table in (suite.train, variant.train)]
    fields = {**tables[0], **tables[1]}
    optimizer = fields.pop("optimizer", None) or suite.optimizer
    where = f"suite {suite.name}, variant {name}"
    train = validated(Training, fields, where=f"{where}, train")
    inference = validated(
        Evaluation, {**fields_of(suite.eval), **fields_of(variant.eval)}, where=f"{where}, eval"
    )
    if variant.model_from is None:
        _check_own(where, train, inference)
    if workload == "attention":
        return {"optimizer": "none"}
    if workload != "train_step":
        kept = {key: getattr(train, key) for key in ("autocast", "loss", "compile")}
        found = {"optimizer": "none", "train": Training(**kept)}
        return found | ({"eval": inference} if workload == "eval" else {})
    return {"optimizer": optimizer, "train": train}


def _check_own(where: str, train: Training, inference: Evaluation) -> None:
    """Raise InputError for switches that models of this package have in another way."""
    instead = {
        "gradient_checkpointing": "model.residual = 'checkpointed' or 'reversible' says what is "
        "kept for the backward pass",
        "loss": "they have their own loss",
        "compile": "it is not tried on them",
    }
    for key, words in instead.items():
        if getattr(train, key) != Training.model_fields[key].default:
            raise InputError(
                f"{where}: train.{key} is for other models (model_from); in this package's, {words}"
            )
    if inference.cache:
        raise InputError(f"{where}: eval.cache is for other models (model_from)")


def variant_model(suite: Suite, name: str, kind: DeviceKind) -> tuple[ModelConfig, str | None]:
    """Return the model of a variant, and the folder that its weights come from.

    The model is put together from suite, device, preset, checkpoint and variant. The folder is an
    absolute path; None stands for random weights. Raises InputError where the parts don't fit
    together.
    """
    variant = suite.variants[name]
    where = f"suite {suite.name}, variant {name}"
    # What sets model fields, weakest first, each with the place it was written in.
    tables: list[tuple[str, dict[str, Any]]] = [
        ("model", fields_of(suite.model)),
        (f"device.{kind}.model", fields_of(suite.on(kind).model)),
        (f"preset {variant.preset}", PRESETS.get(variant.preset or "", {})),
        (f"variants.{name}.model", fields_of(variant.model)),
    ]
    checkpoint = None
    for _, table in tables:
        checkpoint = table.get("checkpoint", checkpoint)
    if checkpoint is not None:
        checkpoint = str(Path(checkpoint).expanduser().resolve())
        tables.insert(-1, ("checkpoint", _saved_fields(where, variant, checkpoint)))
    fields: dict[str, Any] = {}
    written: dict[str, str] = {}
    for place, table in tables:
        fields.update(table)
        written.update(dict.fromkeys(table, place))
    fields.pop("checkpoint", None)
    return validated(ModelConfig, fields, where=where, name=_written_in(written)), checkpoint


def _saved_fields(where: str, variant: Variant, checkpoint: str) -> dict[str, Any]:
    """Return the model fields of a checkpoint, once it is sure that the variant can be measured
    with it.

    A variant must not be another model than its name and its fields say.
    """
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


def _written_in(places: dict[str, str]) -> Callable[[str], str]:
    """Return what puts the place that a model field was written in before its key."""

    def name(key: str) -> str:
        place = places.get(key.split(".")[0])
        return key if place is None else f"{place}.{key}"

    return name


def _check_fits(
    suite: Suite, name: str, model: ModelConfig | TargetConfig, workload: Workload, length: int
) -> None:
    """Raise InputError where a workload or a length is not the model's."""
    where = f"suite {suite.name}, variant {name}"
    if isinstance(model, TargetConfig):
        if workload == "attention":
            raise InputError(
                f"{where}: workload 'attention' is for models of this package (allowed with "
                "model_from: train_step, forward, eval)"
            )
        return
    if workload == "eval":
        raise InputError(
            f"{where}: workload 'eval' is for other models (model_from); this package's models "
            "have 'forward'"
        )
    if workload == "attention" or model.positions is Positions.NONE:
        return
    if length > model.max_length:
        raise InputError(
            f"suite {suite.name}, variant {name}: length {length} is more than "
            f"model.max_length = {model.max_length}"
        )
