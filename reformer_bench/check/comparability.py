"""Comparability: which figures of two environments may be compared, and what forbids it."""

from __future__ import annotations

from dataclasses import dataclass

from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.record import Record
from reformer_bench.schema.tolerances import Metric

_ALWAYS = ("device_kind", "torch_version", "torch_threads")
"""Operators' own working memory depends on these: on the CPU some take a buffer for each thread."""

_NARROW = ("instruction_set",)
"""Kernels for bfloat16 hold other buffers where the processor computes in bfloat16 itself."""

_DEVICE = ("device_name", "driver_version", "cuda_version", "torch_build", "allocator_settings")

_MACHINE = (
    *_ALWAYS,
    *_NARROW,
    *_DEVICE,
    "cpu_model",
    "cpu_count",
    "device_memory_bytes",
    "host_memory_bytes",
    "os",
    "python_version",
)
"""What decides the resident set, the driver's figures and time: the kind of machine, not which
machine of that kind it is."""

_KERNEL = "settings.lsh_kernel"
_LIBRARIES = {"transformers": "transformers", "reformer-pytorch": "reformer-pytorch"}


@dataclass(frozen=True)
class Difference:
    """What forbids a comparison: a field, named as ``--allow`` takes it, and its two values."""

    field: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.old)} then, {_shown(self.new)} now"


def differences(old: Record, new: Record, metric: Metric) -> tuple[Difference, ...]:
    """Return what differs of everything that decides a metric, apart from the measured
    code itself.

    Predicted bytes need the same version and number of threads of PyTorch. Allocated and reserved
    bytes on CUDA also need the same device, driver and allocator settings. Everything else needs
    the same kind of machine.
    """
    found = [
        Difference(f"env.{field}", before, now)
        for field in _fields(metric, old, new)
        if (before := getattr(old.environment, field)) != (now := getattr(new.environment, field))
    ]
    return tuple(found + _library(old, new) + _case(old, new))


def accepted(difference: Difference, allowed: frozenset[str]) -> bool:
    """Whether ``--allow`` names the field; ``env.torch`` stands for all fields about PyTorch."""
    return is_accepted(difference.field, allowed)


def is_accepted(field: str, allowed: frozenset[str]) -> bool:
    """Whether ``--allow`` names a field, or what it belongs to."""
    return any(_stands_for(name, field) for name in allowed)


def check_allowed(names: frozenset[str]) -> None:
    """Raise InputError for a name that no difference can have."""
    model = [f"case.model.{field}" for field in ModelConfig.model_fields]
    libraries = [f"env.packages.{name}" for name in _LIBRARIES]
    fields = [f"env.{field}" for field in _MACHINE] + libraries
    known = [*fields, *(f"case.{field}" for field in Case.model_fields), *model, _KERNEL]
    for name in sorted(names):
        if not any(_stands_for(name, field) for field in known):
            hint = did_you_mean(name, known)
            raise InputError(
                f"--allow: {name!r} is nothing that is compared{hint} (allowed: env.torch, "
                f"{', '.join(fields)}, case.…, {_KERNEL})"
            )


def _stands_for(name: str, field: str) -> bool:
    return field == name or field.startswith((f"{name}_", f"{name}."))


def _fields(metric: Metric, old: Record, new: Record) -> tuple[str, ...]:
    if not metric.is_exact:
        return _MACHINE
    if "cuda" in (old.environment.device_kind, new.environment.device_kind):
        return _ALWAYS if metric is Metric.PREDICTED else (*_ALWAYS, *_DEVICE)
    return (*_ALWAYS, *_NARROW) if new.case.model.dtype == "bfloat16" else _ALWAYS


def _library(old: Record, new: Record) -> list[Difference]:
    """Return the version of the other library, where other people's code is measured."""
    name = _LIBRARIES.get(new.case.implementation)
    versions = [r.environment.packages.get(name or "") for r in (old, new)]
    return [] if versions[0] == versions[1] else [Difference(f"env.packages.{name}", *versions)]


def _case(old: Record, new: Record) -> list[Difference]:
    """Return what differs in the case itself: another setting under the same name, or another
    kernel, which is another algorithm with memory of its own.
    """
    before, now = _flat(old.case), _flat(new.case)
    kernels = [record.settings.get("lsh_kernel") for record in (old, new)]
    if None not in kernels:
        before[_KERNEL], now[_KERNEL] = kernels
    return [
        Difference(key, before.get(key), now.get(key))
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]


def _flat(case: Case) -> dict[str, object]:
    data = case.model_dump(mode="json", exclude={"device"})
    model = data.pop("model")
    flat = {f"case.{key}": value for key, value in data.items()}
    # Not its index: the second device of a machine is like its first, or has another name.
    flat["case.device"] = case.device.partition(":")[0]
    return flat | {f"case.model.{key}": value for key, value in model.items()}


def _shown(value: object) -> str:
    return "none" if value is None or value == "" else str(value)
