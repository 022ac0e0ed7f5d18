"""Quantities that claims are about: activation memory, time and FLOPs, each with its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reformer_bench.claims.fit import Censored, Fit, Point, fit_power
from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.quartiles import quartiles
from reformer_bench.schema.record import Outcome, Record

Basis = Literal["measured", "predicted", "counted"]
"""Where a figure comes from: measured on a device, predicted from fake tensors, or counted FLOPs.
They are never mixed in one fit."""

_PREDICTED_SOURCE = "fake-tensor"
_RAN_OUT = frozenset(
    {Outcome.DEVICE_OOM, Outcome.HOST_OOM, Outcome.OVER_BUDGET, Outcome.TIMEOUT, Outcome.KILLED}
)


@dataclass(frozen=True)
class Quantity:
    """A figure of a record, and where it comes from."""

    name: str
    basis: Basis
    of: Callable[[Record], float | None]
    is_memory: bool = False


def is_measured(record: Record) -> bool:
    """Whether the allocator's figures come from a real run, not from fake tensors."""
    allocator = record.memory.allocator
    return allocator is not None and allocator.source != _PREDICTED_SOURCE


def fixed_bytes(record: Record) -> int | None:
    """Return the bytes of parameters, gradients and optimizer state at the peak; None without a
    breakdown.
    """
    allocator = record.memory.allocator
    if allocator is None or allocator.breakdown is None:
        return None
    parts = allocator.breakdown
    return parts.parameters_bytes + parts.gradients_bytes + parts.optimizer_bytes


def activation_bytes(record: Record) -> float | None:
    """Return the peak without parameters, gradients and optimizer state; None where that isn't
    known.

    Where the peak is that of the optimizer's phase, its temporaries grow with the parameters. Then
    the peak of the forward and backward phases counts, less the same fixed parts.
    """
    allocator, fixed = record.memory.allocator, fixed_bytes(record)
    if record.outcome is not Outcome.OK or allocator is None or fixed is None:
        return None
    peak = allocator.breakdown.total_bytes if allocator.breakdown is not None else 0
    if allocator.breakdown_phase not in ("forward", "backward"):
        phases = ("forward", "backward")
        peaks = [p.allocated_bytes for p in allocator.warm or allocator.cold if p.phase in phases]
        peak = max(peaks, default=0)
    return float(peak - fixed) if peak > fixed else None


def step_ms(record: Record) -> float | None:
    """Return the median time of a warm step; None unless the case finished."""
    if record.outcome is not Outcome.OK or record.timing is None:
        return None
    found = quartiles([sample.total_ms for sample in record.timing.warm])
    return None if found is None else found.median


def cold_rate(record: Record) -> float | None:
    """Return the tokens per second of a case that made a cold step only; None for any other."""
    timing = record.timing
    if record.outcome is not Outcome.OK or timing is None or timing.warm:
        return None
    return 1e3 * record.case.tokens / timing.cold.total_ms


def flops(record: Record) -> float | None:
    """Return the FLOPs of a step's matrix products."""
    counted = None if record.timing is None else record.timing.flops
    return None if counted is None else float(counted)


def measured_activations(record: Record) -> float | None:
    """Return the activation memory that a device's allocator saw."""
    return activation_bytes(record) if is_measured(record) else None


MEMORY = Quantity("activation memory", "measured", measured_activations, is_memory=True)
TIME = Quantity("time of a step", "measured", step_ms)
FLOPS = Quantity("FLOPs of a step", "counted", flops)


def predicted_memory(records: Iterable[Record]) -> Quantity:
    """Return the predicted activation memory; the fixed parts come from any record of the same
    model.
    """
    known: dict[ModelConfig, int] = {}
    for record in records:
        fixed = fixed_bytes(record)
        if fixed is not None:
            known.setdefault(record.case.model, fixed)

    def of(record: Record) -> float | None:
        if record.memory.allocator is not None and not is_measured(record):
            return activation_bytes(record)
        peak, fixed = record.memory.predicted_peak_bytes, known.get(record.case.model)
        return float(peak - fixed) if peak is not None and fixed is not None else None

    return Quantity("activation memory", "predicted", of, is_memory=True)


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each case, predictions apart from measurements."""
    found = {
        (record.case_id, record.memory.allocator is not None and not is_measured(record)): record
        for record in records
    }
    return list(found.values())


def growth(
    records: Sequence[Record], x: Callable[[Record], float], quantity: Quantity
) -> Fit | None:
    """Fit the exponent with which a quantity grows with ``x``; None where too few records
    have it.
    """
    points, censored = [], []
    for record in records:
        value = quantity.of(record)
        if value is not None and value > 0:
            points.append(Point(x(record), value))
        elif quantity.basis == "measured" and record.outcome in _RAN_OUT:
            reached = record.memory.peak_bytes if quantity.is_memory else None
            fixed = fixed_bytes(record)
            known = reached is not None and fixed is not None and reached > fixed
            bound = float(reached - fixed) if known else None  # type: ignore[operator]
            censored.append(Censored(x(record), bound))
    return fit_power(points, censored)
