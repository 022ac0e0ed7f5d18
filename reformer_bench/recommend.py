"""Recommendation: the fastest combination of switches that fits, from measurements or predictions.

Figures are measured where a run has them, else predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

from reformer_bench.report.frontier import Option, fastest_within, frontier
from reformer_bench.schema.case import Case, DeviceKind
from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.record import Record

Foretell = Callable[[Case], tuple[int, int]]
"""Predicts the peak of a case in bytes and the FLOPs of a step."""
Unit = Literal["ms", "FLOP"]


@dataclass(frozen=True)
class Recommendation:
    """The options that were compared, and the one to choose within a budget."""

    options: list[Option]
    unit: Unit
    """That of all their costs."""
    budget_bytes: int

    @property
    def best(self) -> Option | None:
        """The fastest option that fits; None where none does."""
        return fastest_within(self.options, self.budget_bytes)

    def as_data(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "budget_bytes": self.budget_bytes,
            "cost_unit": self.unit,
            "recommended": None if self.best is None else self.best.name,
            "frontier": [option.name for option in frontier(self.options)],
            "options": [asdict(option) for option in self.options],
        }


def with_attention(cases: Sequence[Case], attention: str) -> list[Case]:
    """Return the cases that have only the kinds of attention named; InputError for an unknown one.

    Args:
        cases: All combinations.
        attention: Names with commas between them, as ``--attention`` takes them.

    """
    kinds = {kind for case in cases for kind in case.config.attention}
    wanted = {name.strip(): None for name in attention.split(",")}
    for name in wanted:
        if name not in kinds:
            raise InputError(
                f"--attention: {name!r} is not among the combinations{did_you_mean(name, kinds)} "
                f"(allowed: {', '.join(sorted(kinds))})"
            )
    return [case for case in cases if wanted.keys() >= set(case.config.attention)]


def check_device(records: Iterable[Record], kind: DeviceKind) -> None:
    """Raise InputError where runs were made on another kind of device than is asked about."""
    others = {record.environment.device_kind for record in records} - {kind}
    if others:
        raise InputError(
            f"the runs were made on {others.pop()}, and the choice is to be made for {kind}: name "
            "a device of their kind with --device-profile, or give no run"
        )


def options_of(
    cases: Sequence[Case], records: Iterable[Record], foretell: Foretell
) -> tuple[list[Option], Unit]:
    """Return an option for each case, and the unit of all their costs.

    A case that a record has measured takes its peak and its time from there; one that ran out of
    memory is marked. The time of any other case is estimated: its FLOPs, at the speed that measured
    cases of the same attention and dtype reached, or of the same dtype. If a case is left without a
    time, FLOPs are the cost of all.
    """
    kinds = {(case.device_kind, case.workload) for case in cases}
    about = [
        record
        for record in records
        if record.case.implementation == "native"
        and (record.environment.device_kind, record.case.workload) in kinds
    ]
    by_case = {_what_is_run(record.case): record for record in about}
    speeds = _speeds(about, foretell)
    options = [_option(case, by_case.get(_what_is_run(case)), speeds, foretell) for case in cases]
    if all(option.cost_source != "predicted" for option in options):
        return options, "ms"
    return [
        replace(option, cost=foretell(case)[1], cost_source="predicted")
        for option, case in zip(options, cases, strict=True)
    ], "FLOP"


_Speeds = dict[tuple[tuple[str, ...], str], float]
"""The FLOPs per millisecond of a device, by what decides them: attention of the layers, dtype."""


def _speeds(records: Iterable[Record], foretell: Foretell) -> _Speeds:
    """Return the speeds that measured steps reached, as medians over records."""
    found: dict[tuple[tuple[str, ...], str], list[float]] = {}
    for record in records:
        if record.is_measured and record.step_ms and record.case.target is None:
            flops = record.flops or foretell(record.case)[1]
            key = (record.case.config.attention, record.case.config.dtype)
            found.setdefault(key, []).append(flops / record.step_ms)
    return {key: median(speeds) for key, speeds in found.items()}


def _option(case: Case, record: Record | None, speeds: _Speeds, foretell: Foretell) -> Option:
    """Make the option in milliseconds where a time is known or can be estimated, else in FLOPs."""
    if record is not None and record.is_measured and record.step_ms is not None:
        assert record.memory.peak_bytes is not None
        return Option(
            case.variant, record.memory.peak_bytes, record.step_ms, "measured", "measured"
        )
    peak, flops = foretell(case)
    ran_out = record is not None and record.outcome.is_out_of_memory
    option = Option(case.variant, peak, flops, ran_out=ran_out)
    of_dtype = [speed for (_, dtype), speed in speeds.items() if dtype == case.config.dtype]
    if not of_dtype:
        return option
    speed = speeds.get((case.config.attention, case.config.dtype)) or median(of_dtype)
    return replace(option, cost=flops / speed, cost_source="estimated")


def _what_is_run(case: Case) -> str:
    """Return all that decides a case's figures, which leaves out names, seed and the device's
    number.
    """
    plain = {"suite": "", "variant": "", "seed": 0, "device": case.device_kind}
    return case.model_copy(update=plain).id
