"""Powers: how memory and time grow, against the power that a claim expects."""

from __future__ import annotations

from collections.abc import Callable

from reformer_bench.analysis.judging import Expectation, Finding, judged, two_decimals
from reformer_bench.analysis.quantities import FLOPS, MEMORY, TIME, growth, predicted_memory
from reformer_bench.analysis.selection import Records
from reformer_bench.spec.record import Record


def memory_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Judge the growth of measured activation memory; of predicted memory where none was
    measured.
    """
    measured = growth(records, x, MEMORY)
    predicted = growth(records, x, predicted_memory(records))
    if measured is None and predicted is not None:
        return judged(expectation, predicted, "predicted")
    beside = "" if predicted is None else f"predicted {two_decimals(predicted.exponent)}"
    return judged(expectation, measured, "measured", beside)


def time_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Judge the growth of measured time, and note that of the counted FLOPs beside it."""
    counted = growth(records, x, FLOPS)
    beside = "" if counted is None else f"FLOPs {two_decimals(counted.exponent)}"
    return judged(expectation, growth(records, x, TIME), "measured", beside)
