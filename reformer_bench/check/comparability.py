"""Comparability: which figures of two environments may be compared, and what forbids it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.record import Record
from reformer_bench.schema.target import TargetConfig
from reformer_bench.schema.tolerances import Metric

_INEXACT = frozenset(metric for metric in Metric if not metric.is_exact)
_EXACT = frozenset(Metric) - _INEXACT


@dataclass(frozen=True)
class _Rule:
    """Fields of the environment that have to be equal for some metrics to be compared."""

    fields: tuple[str, ...]
    metrics: frozenset[Metric]
    on_cuda: bool | None = None
    """None: on any device."""
    dtype: str | None = None
    """None: in any dtype."""


_DEVICE = ("device_name", "driver_version", "cuda_version", "torch_build", "allocator_settings")
_RULES = (
    # Operators' own working memory depends on these: on the CPU some take a buffer for each thread.
    _Rule(("device_kind", "torch_version", "torch_threads"), frozenset(Metric)),
    # Kernels for bfloat16 hold other buffers where the processor computes in bfloat16 itself.
    _Rule(("instruction_set",), _EXACT, on_cuda=False, dtype="bfloat16"),
    # The resident set, the driver's figures and time are decided by the kind of machine, not by
    # which machine of that kind it is.
    _Rule(("instruction_set",), _INEXACT),
    _Rule(_DEVICE, _INEXACT),
    _Rule(_DEVICE, _EXACT - {Metric.PREDICTED}, on_cuda=True),
    _Rule(
        (
            "cpu_model",
            "cpu_count",
            "device_memory_bytes",
            "host_memory_bytes",
            "os",
            "python_version",
        ),
        _INEXACT,
    ),
)
_KERNEL = "settings.lsh_kernel"
_LIBRARIES = ("transformers", "reformer-pytorch")
"""The packages whose version decides what other people's models take."""


@dataclass(frozen=True)
class Difference:
    """What forbids a comparison: a field, named as ``--allow`` takes it, and its two values."""

    field: str
    old: object
    new: object

    def __str__(self) -> str:
        old, new = ("none" if value in (None, "") else value for value in (self.old, self.new))
        return f"{self.field}: {old} then, {new} now"


def differences(
    old: Record, new: Record, metric: Metric, allowed: frozenset[str] = frozenset()
) -> tuple[Difference, ...]:
    """Return what differs of everything that decides a metric, apart from the measured code itself
    and from what ``allowed`` accepts.
    """
    before, now = (_deciding(record, metric, old, new) for record in (old, new))
    return tuple(
        Difference(field, before.get(field), now.get(field))
        for field in dict.fromkeys((*before, *now))
        if before.get(field) != now.get(field) and not is_accepted(field, allowed)
    )


def is_accepted(field: str, allowed: frozenset[str]) -> bool:
    """Whether ``--allow`` names a field, or what it belongs to: ``env.torch`` stands for all fields
    about PyTorch.
    """
    return any(field == name or field.startswith((f"{name}_", f"{name}.")) for name in allowed)


def check_allowed(names: frozenset[str]) -> None:
    """Raise InputError for a name that no difference can have."""
    fields = list(dict.fromkeys(f"env.{field}" for rule in _RULES for field in rule.fields))
    fields += [f"env.packages.{name}" for name in _LIBRARIES]
    case = [f"case.{field}" for field in Case.model_fields]
    models = dict.fromkeys((*ModelConfig.model_fields, *TargetConfig.model_fields))
    known = [*fields, *case, *(f"case.model.{field}" for field in models), _KERNEL]
    for name in sorted(names):
        if not any(is_accepted(field, frozenset({name})) for field in known):
            hint = did_you_mean(name, known)
            raise InputError(
                f"--allow: {name!r} is nothing that is compared{hint} (allowed: env.torch, "
                f"{', '.join(fields)}, case.…, {_KERNEL})"
            )


def _library(case: Case) -> str | None:
    """Return the package that a case's model comes from; None for this package, and for code of the
    user's own.
    """
    if case.target is not None:
        return None if case.target.name.runs_code else "transformers"
    return case.implementation if case.implementation in _LIBRARIES else None


def _deciding_model(case: Case) -> dict[str, Any]:
    """Return what describes a case's model, apart from its code: that is what is
    checked."""
    if case.target is None:
        return case.config.model_dump(mode="json")
    decides = case.target.decides()
    return {key: value for key, value in decides.items() if key != "sha256"}


def _deciding(record: Record, metric: Metric, old: Record, new: Record) -> dict[str, Any]:
    """Return the fields of a record that decide a metric, where both records have them."""
    on_cuda = "cuda" in (old.environment.device_kind, new.environment.device_kind)
    found = {
        f"env.{field}": getattr(record.environment, field)
        for rule in _RULES
        if metric in rule.metrics
        and rule.on_cuda in (None, on_cuda)
        and rule.dtype in (None, new.case.model.dtype)
        for field in rule.fields
    }
    # Where other people's code is measured, its version.
    library = _library(new.case)
    if library is not None:
        found[f"env.packages.{library}"] = record.environment.packages.get(library)
    # Another setting under the same name, or another kernel, which is another algorithm with memory
    # of its own.
    data = record.case.model_dump(mode="json", exclude={"model", "device"})
    found |= {f"case.{key}": value for key, value in data.items()}
    # Not its index: the second device of a machine is like its first, or has another name.
    found["case.device"] = record.case.device.partition(":")[0]
    model = _deciding_model(record.case)
    found |= {f"case.model.{key}": value for key, value in model.items()}
    if "lsh_kernel" in old.settings and "lsh_kernel" in new.settings:
        found[_KERNEL] = record.settings["lsh_kernel"]
    return found
