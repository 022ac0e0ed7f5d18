"""The points of a plot: what was measured, what was predicted, and where each variant stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from reformer_bench.analysis.frames import case_row
from reformer_bench.analysis.groups import Group, stopped
from reformer_bench.spec.record import Outcome, Record

Quantity = Literal["memory", "throughput"]
StopKind = Literal["memory", "budget", "time", "other"]

_STOPS: dict[Outcome, StopKind] = {
    Outcome.DEVICE_OOM: "memory",
    Outcome.HOST_OOM: "memory",
    Outcome.OVER_BUDGET: "budget",
    Outcome.TIMEOUT: "time",
}


@dataclass(frozen=True)
class Point:
    """A figure at a length; ``lower`` and ``upper`` are quartiles where there are samples."""

    length: int
    value: float
    is_predicted: bool = False
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Stop:
    """A length that a variant was tried at without finishing."""

    length: int
    kind: StopKind
    value: float | None
    """The height to draw it at: predicted, or continued from the last two points; None: unknown."""
    is_predicted: bool


@dataclass(frozen=True)
class Curve:
    """One variant's points and stops, by length."""

    variant: str
    quantity: Quantity
    points: tuple[Point, ...]
    stops: tuple[Stop, ...]


def curves(group: Group, quantity: Quantity) -> list[Curve]:
    """A curve for each variant that has anything to show, in order of first appearance."""
    found = []
    for variant in group.variants:
        records = group.series(variant)
        points = [p for p in (_point(record, quantity) for record in records) if p is not None]
        # A stop without a figure of its own sits where the measured curve was heading.
        stops = tuple(_stop(record, points) for record in records if stopped(record))
        if points or stops:
            found.append(Curve(variant, quantity, tuple(points), stops))
    return found


def _point(record: Record, quantity: Quantity) -> Point | None:
    row = case_row(record)
    length, finished = record.case.length, record.outcome is Outcome.OK
    if quantity == "throughput":
        rate = row["tokens_per_second"]
        if not finished or rate is None:
            return None
        # One sample has quartiles but no spread.
        spread = row["iqr_ms"] is not None
        lower = row["tokens_per_second_lower"] if spread else None
        return Point(length, rate, False, lower, row["tokens_per_second_upper"] if spread else None)
    # The peak of a case that did not finish is only what it had reached by then.
    if finished and row["peak_bytes"] is not None:
        return Point(length, row["peak_bytes"], row["peak_source"] == "fake-tensor")
    if row["predicted_peak_bytes"] is not None:
        return Point(length, row["predicted_peak_bytes"], is_predicted=True)
    return None


def _stop(record: Record, points: list[Point]) -> Stop:
    length = record.case.length
    kind = _STOPS.get(record.outcome, "other")
    for point in points:
        if point.length == length:
            return Stop(length, kind, point.value, is_predicted=True)
    return Stop(length, kind, _continued(points, length), is_predicted=False)


def _continued(points: list[Point], length: int) -> float | None:
    """The line through the last two points below ``length``, in logarithms, carried on to it."""
    before = [point for point in points if point.length < length]
    if len(before) < 2:
        return before[0].value if before else None
    first, last = before[-2:]
    slope = math.log(last.value / first.value) / math.log(last.length / first.length)
    return last.value * float(length / last.length) ** slope
