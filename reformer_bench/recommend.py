"""Choices: the options of a frontier, from measurements where there are any, else predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median

from reformer_bench.claims.quantities import is_measured, step_ms
from reformer_bench.report.frontier import Option
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Outcome, Record

Foretold = tuple[int, int]
"""The peak in bytes and the FLOPs of a step, as predicted for a case."""
Speed = tuple[tuple[str, ...], str]
"""What decides how fast a device is: the attention of the layers, and the dtype."""


def options_of(
    cases: Sequence[Case], records: Iterable[Record], foretell: Callable[[Case], Foretold]
) -> tuple[list[Option], str]:
    """Return an option for each case, and the unit of all their costs, ``ms`` or
    ``FLOP``.

    A case that a record has measured takes its peak and its time from there; one that ran out of
    memory is marked. The time of any other case is estimated: its FLOPs, at the speed that measured
    cases of the same attention and dtype reached, or of the same dtype. If a case is left without a
    time, FLOPs are the cost of all.
    """
    found = [record for record in records if _is_told_of(record, cases)]
    by_case = {_what_is_run(record.case): record for record in found}
    speeds = _speeds([record for record in found if _is_timed(record)], foretell)
    drafts = [_draft(case, by_case.get(_what_is_run(case)), speeds, foretell) for case in cases]
    if all(option.cost_source != "predicted" for option in drafts):
        return drafts, "ms"
    counted = [foretell(case)[1] for case in cases]
    return [
        replace(option, cost=flops, cost_source="predicted")
        for option, flops in zip(drafts, counted, strict=True)
    ], "FLOP"


def _is_told_of(record: Record, cases: Sequence[Case]) -> bool:
    """Whether a record is about one of these cases: our own model, on their kind of device."""
    kinds = {(case.device.partition(":")[0], case.workload) for case in cases}
    kind = record.environment.device_kind
    return record.case.implementation == "native" and (kind, record.case.workload) in kinds


def _is_timed(record: Record) -> bool:
    return record.outcome is Outcome.OK and is_measured(record) and step_ms(record) is not None


def _draft(
    case: Case,
    record: Record | None,
    speeds: dict[Speed, float],
    foretell: Callable[[Case], Foretold],
) -> Option:
    """Make the option in milliseconds where a time is known or can be estimated, else in FLOPs."""
    if record is not None and _is_timed(record) and record.memory.peak_bytes is not None:
        time = step_ms(record)
        assert time is not None
        return Option(case.variant, record.memory.peak_bytes, time, "measured", "measured")
    peak, flops = foretell(case)
    ran_out = record is not None and record.outcome in (Outcome.DEVICE_OOM, Outcome.HOST_OOM)
    option = Option(case.variant, peak, flops, ran_out=ran_out)
    alike = [v for (_, dtype), v in speeds.items() if dtype == case.model.dtype]
    if not alike:
        return option
    speed = speeds.get((case.model.attention, case.model.dtype)) or median(alike)
    return replace(option, cost=flops / speed, cost_source="estimated")


def _speeds(measured: Sequence[Record], foretell: Callable[[Case], Foretold]) -> dict[Speed, float]:
    """Return the FLOPs per millisecond that steps reached, as medians over records, by attention
    and dtype.
    """
    found: dict[Speed, list[float]] = {}
    for record in measured:
        counted = record.timing.flops if record.timing is not None else None
        flops, time = counted or foretell(record.case)[1], step_ms(record)
        if time:
            key = (record.case.model.attention, record.case.model.dtype)
            found.setdefault(key, []).append(flops / time)
    return {key: median(speeds) for key, speeds in found.items()}


def _what_is_run(case: Case) -> str:
    """Return all that decides a case's figures, which leaves out names, seed and the device's
    number.
    """
    plain = {"suite": "", "variant": "", "seed": 0, "device": case.device.partition(":")[0]}
    return case.model_copy(update=plain).id
