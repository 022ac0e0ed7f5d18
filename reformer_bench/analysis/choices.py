"""Choices: the options of a frontier, from measurements where there are any, else predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from reformer_bench.analysis.frontier import Option
from reformer_bench.analysis.quantities import is_measured, step_ms
from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Outcome, Record

Foretold = tuple[int, int]
"""(peak in bytes, FLOPs of a step) of a case, from fake tensors."""


def options_of(
    cases: Sequence[Case], records: Iterable[Record], foretell: Callable[[Case], Foretold]
) -> tuple[list[Option], str]:
    """An option for each case, and the unit of their costs: ``ms`` or ``FLOP``.

    A case that a record has measured takes peak and time from it. The time of another is its
    FLOPs at the speed that measured cases of its attention reached, or of any attention where its
    own has none. With no measurement at all, costs are FLOPs.
    """
    measured = [r for r in records if r.outcome is Outcome.OK and is_measured(r)]
    by_case = {_what_is_run(record.case): record for record in measured}
    speeds = _speeds(measured, foretell)
    options = []
    for case in cases:
        record = by_case.get(_what_is_run(case))
        time = None if record is None else step_ms(record)
        if record is not None and time is not None and record.memory.peak_bytes is not None:
            peak = record.memory.peak_bytes
            options.append(Option(case.variant, peak, time, "measured", "measured"))
            continue
        peak, flops = foretell(case)
        if speeds:
            speed = speeds.get(case.model.attention) or median(speeds.values())
            options.append(Option(case.variant, peak, flops / speed, "predicted", "estimated"))
        else:
            options.append(Option(case.variant, peak, flops, "predicted", "predicted"))
    return options, "ms" if speeds else "FLOP"


def _speeds(
    measured: Sequence[Record], foretell: Callable[[Case], Foretold]
) -> dict[tuple[str, ...], float]:
    """FLOPs per millisecond that training steps reached, by attention: the median over records."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in measured:
        time = step_ms(record)
        if time is None or record.case.workload != "train_step":
            continue
        counted = record.timing.flops if record.timing is not None else None
        flops = counted or foretell(record.case)[1]
        found.setdefault(record.case.model.attention, []).append(flops / time)
    return {attention: median(speeds) for attention, speeds in found.items()}


def _what_is_run(case: Case) -> str:
    """All that decides a case's figures: not its names, its seed or which of equal devices."""
    plain = {"suite": "", "variant": "", "seed": 0, "device": case.device.partition(":")[0]}
    return case.model_copy(update=plain).id
