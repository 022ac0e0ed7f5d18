"""The points of a plot: what was measured, what was predicted, and where each curve stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from reformer_bench.report.frames import CaseRow
from reformer_bench.report.words import rate_noun
from reformer_bench.schema.record import Outcome, Record

Quantity = Literal["memory", "activations", "throughput"]
StopKind = Literal["memory", "budget", "time", "other"]

_STOPS: dict[Outcome, StopKind] = {
    Outcome.DEVICE_OOM: "memory",
    Outcome.HOST_OOM: "memory",
    Outcome.OVER_BUDGET: "budget",
    Outcome.TIMEOUT: "time",
}
_CLOSE = 1.02
"""Curves whose values differ by less than this factor lie on top of each other."""
_EQUAL = 1.001


def quantity_name(quantity: Quantity, noun: str) -> str:
    """Return what axes call a quantity; ``noun`` is what throughput counts."""
    names = {"memory": "peak memory", "activations": "activation memory"}
    return names.get(quantity, f"{noun} per second")


@dataclass(frozen=True)
class PlotPoint:
    """A figure at a size; ``lower`` and ``upper`` are quartiles where there are samples."""

    x: int
    value: float
    is_predicted: bool = False
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Stop:
    """A size that was tried without finishing."""

    x: int
    kind: StopKind
    value: float | None
    """The predicted figure; None: there is no figure, so there is no place for a sign of its own.
    """


@dataclass(frozen=True)
class Curve:
    """Points and stops of one series, by size."""

    name: str
    """Its look goes by it."""
    label: str
    quantity: Quantity
    points: tuple[PlotPoint, ...]
    stops: tuple[Stop, ...]
    noun: str = "tokens"
    """What its throughput counts."""

    @property
    def quantity_name(self) -> str:
        """The quantity's name."""
        return quantity_name(self.quantity, self.noun)


@dataclass(frozen=True)
class Overlap:
    """A curve that lies on another."""

    curve: Curve
    under: Curve
    is_same: bool
    """Whether they are equal, and not only close."""


def curve_of(
    name: str,
    label: str,
    records: Sequence[Record],
    x_of: Callable[[Record], int],
    quantity: Quantity,
) -> Curve:
    """Return the curve of records that differ in ``x_of`` alone."""
    ordered = sorted(records, key=x_of)
    pairs = [(record, point_of(record, x_of(record), quantity)) for record in ordered]
    stops = []
    for record, found in pairs:
        if record.outcome.is_stop:
            kind = _STOPS.get(record.outcome, "other")
            stops.append(Stop(x_of(record), kind, None if found is None else found.value))
    points = tuple(found for _, found in pairs if found is not None)
    return Curve(name, label, quantity, points, tuple(stops), rate_noun(records))


def point_of(record: Record, x: int, quantity: Quantity) -> PlotPoint | None:
    """Return a record's figure; None where it has none of this quantity."""
    if quantity == "throughput":
        row = CaseRow(record)
        if not record.finished or row.rate is None:
            return None
        # One sample has quartiles but no spread.
        scatters = row.step is not None and row.step.iqr is not None
        lower, upper = (row.rate_quartiles if scatters else None) or (None, None)
        return PlotPoint(x, row.rate, False, lower, upper)
    if quantity == "activations":
        kept = record.activation_bytes
        return None if kept is None else PlotPoint(x, kept, record.is_predicted)
    # The peak of a case that did not finish is only what it had reached by then.
    if record.finished and record.memory.peak_bytes is not None:
        return PlotPoint(x, record.memory.peak_bytes, record.is_predicted)
    predicted = record.memory.predicted_peak_bytes
    return None if predicted is None else PlotPoint(x, predicted, is_predicted=True)


def has_figure(record: Record) -> bool:
    """Whether any quantity of the record can be drawn."""
    return any(point_of(record, 1, quantity) is not None for quantity in ("memory", "throughput"))


def overlaps(curves: Sequence[Curve]) -> list[Overlap]:
    """Return the curves that lie on an earlier one wherever both have a point, each once."""
    found: list[Overlap] = []
    for i, one in enumerate(curves):
        for other in curves[:i]:
            ratio = _largest_ratio(one, other)
            if ratio is not None and ratio < _CLOSE:
                found.append(Overlap(one, other, ratio < _EQUAL))
                break
    return found


def _largest_ratio(one: Curve, other: Curve) -> float | None:
    """Return the largest factor between two curves; None unless one covers the other's sizes."""
    values, others = ({p.x: p.value for p in c.points} for c in (one, other))
    common = values.keys() & others.keys()
    if not common or len(common) < min(len(values), len(others)):
        return None
    return max(max(values[x] / others[x], others[x] / values[x]) for x in common)
