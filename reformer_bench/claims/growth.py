"""Growth of any run's figures with the length, in words: the fits that claims are judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reformer_bench.claims.fit import Fit, Point, fit_power
from reformer_bench.report.groups import Group, group_records
from reformer_bench.schema.record import Record

LEAST_LENGTHS = 4
"""Fewer say little about how a figure grows."""


def growth_lines(records: Iterable[Record]) -> list[str]:
    """Return a line for each group of records with what was fitted to its variants: the exponents
    with which memory and time grow as the length does.

    Memory is the peak less parameters, gradients and optimizer state, measured where there are
    enough lengths and else predicted. Groups whose batch changes with the length have no line, nor
    have variants with fewer than four lengths.
    """
    lines = []
    for group in group_records(records):
        found = [words for variant in group.variants if (words := _variant(group, variant))]
        if group.batch is not None and found:
            lines.append(
                "Growth with the length L, fitted (90% interval; memory without parameters, "
                f"gradients and optimizer state): {'; '.join(found)}."
            )
    return lines


def _variant(group: Group, variant: str) -> str:
    records = group.series(variant)
    measured = [record for record in records if record.is_measured]
    memory, whence = _fitted(measured, lambda record: record.activation_bytes), ""
    if memory is None:
        memory = _fitted(records, lambda record: record.activation_bytes)
        whence = ", predicted"
    time = _fitted(measured, lambda record: record.step_ms)
    parts = []
    if memory is not None:
        parts.append(f"memory {_power(memory)}{whence}")
    if time is not None:
        parts.append(f"time {_power(time)}")
    return f"{variant} {', '.join(parts)}" if parts else ""


def _fitted(records: Sequence[Record], figure: Callable[[Record], float | None]) -> Fit | None:
    points = [Point(record.case.length, value) for record in records if (value := figure(record))]
    if len({point.x for point in points}) < LEAST_LENGTHS:
        return None
    return fit_power(points)


def _power(fit: Fit) -> str:
    """Write an exponent with its interval, and from where on it holds."""
    words = f"L^{fit.exponent:.2f}"
    if fit.lower is not None and fit.upper is not None:
        words += f" ({fit.lower:.2f} to {fit.upper:.2f})"
    if fit.unsettled:
        words += f" from {fit.points[0].x:,.0f} on"
    return words
