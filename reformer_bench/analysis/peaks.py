"""Peaks: the smallest peak of one training step of a given size, measured or predicted."""

from __future__ import annotations

from reformer_bench.analysis.judging import Expectation, Finding, within
from reformer_bench.analysis.scaling import Point
from reformer_bench.analysis.selection import Records
from reformer_bench.spec.record import Outcome, Record

_NAMES = {Outcome.TIMEOUT: "time limit"}
"""Outcomes that are called otherwise than they are stored."""


def smallest_peak(expectation: Expectation, records: Records) -> Finding:
    """Find the smallest measured peak, or else the smallest predicted one of a case that was not
    seen to run out of memory, and name its model.
    """
    ended = [(peak, r) for r in records if (peak := _measured_peak(r)) is not None]
    if ended:
        peak, record = min(ended, key=lambda item: item[0])
        device = f"measured on {record.environment.device_name}"
        return within(expectation, peak, "measured", (_at(record, peak),), _words(record, device))
    ran_out = [r for r in records if r.outcome in (Outcome.DEVICE_OOM, Outcome.HOST_OOM)]
    predicted = [
        (peak, r)
        for r in records
        if r not in ran_out and (peak := r.memory.predicted_peak_bytes) is not None
    ]
    if predicted:
        peak, record = min(predicted, key=lambda item: item[0])
        outcome = _NAMES.get(record.outcome, record.outcome.value)
        tried = "" if record.outcome is Outcome.OK else f"; here: {outcome}"
        words = _words(record, f"predicted, because no run of it finished{tried}")
        return within(expectation, peak, "predicted", (_at(record, peak),), words)
    if ran_out:
        words = _words(ran_out[0], f"ran out of memory on {ran_out[0].environment.device_name}")
        return within(expectation, None, note=words)
    return within(expectation, None, note="no such case was measured or predicted")


def _measured_peak(record: Record) -> int | None:
    allocator = record.memory.allocator
    if record.outcome is not Outcome.OK or allocator is None or allocator.source == "fake-tensor":
        return None
    return record.memory.peak_bytes


def _at(record: Record, peak: float) -> Point:
    return Point(record.case.length, peak)


def _words(record: Record, how: str) -> str:
    model = record.case.model
    return (
        f"{model.n_layers} layers, d_model {model.d_model}, {record.case.length:,} tokens, "
        f"{record.case.optimizer}; {how}"
    )
