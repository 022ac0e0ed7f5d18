"""Causes: which parts of the memory at a peak grew between two records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import Literal

from reformer_bench.check.comparability import Difference, accepted, differences
from reformer_bench.report.frames import BREAKDOWN
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Environment, Memory, Outcome, Phase, Record
from reformer_bench.schema.tolerances import Metric, Tolerance, Tolerances


@dataclass(frozen=True)
class Growth:
    """How a kind of memory at the peak changed, in the whole model or in one part of it."""

    kind: str
    """One of parameters, gradients, optimizer, activations and temporaries."""
    old_bytes: int
    new_bytes: int
    place: str | None = None
    """The part of the model (``layers.3.feed_forward``). None stands for the whole model."""

    @property
    def bytes(self) -> int:
        """How much it grew."""
        return self.new_bytes - self.old_bytes


def growths(old: Record, new: Record) -> tuple[Growth, ...]:
    """Return the kinds of memory that grew at the peak, largest growth first; none without
    breakdowns.
    """
    before, now = (_breakdown(record.memory) for record in (old, new))
    if before is None or now is None:
        return ()
    return _grown([Growth(kind, before[kind], now[kind]) for kind in BREAKDOWN])


def place_growths(old: Record, new: Record) -> tuple[Growth, ...]:
    """Return the same for each part of the model, where both records tell the parts of the
    predicted peak.
    """
    before, now = old.memory.predicted_places, new.memory.predicted_places
    if before is None or now is None:
        return ()
    keys = dict.fromkeys(
        (place, kind) for places in (before, now) for place in places for kind in places[place]
    )
    return _grown(
        [
            Growth(kind, before.get(place, {}).get(kind, 0), now.get(place, {}).get(kind, 0), place)
            for place, kind in keys
        ]
    )


def peak_phase(record: Record) -> Phase | None:
    """Return the phase in which the breakdown was taken."""
    allocator = record.memory.allocator
    return None if allocator is None else allocator.breakdown_phase


def _grown(found: list[Growth]) -> tuple[Growth, ...]:
    return tuple(sorted((g for g in found if g.bytes > 0), key=lambda g: -g.bytes))


def _breakdown(memory: Memory) -> dict[str, int] | None:
    if memory.allocator is None or memory.allocator.breakdown is None:
        return None
    breakdown = memory.allocator.breakdown
    return {kind: getattr(breakdown, f"{kind}_bytes") for kind in BREAKDOWN}


_SIGNIFICANCE = 0.01
"""How unlikely slower samples must be by chance, for them to count as slower."""

Step = Literal["cold", "warm"]


class Verdict(StrEnum):
    """How a figure has changed."""

    OK = "ok"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"


@dataclass(frozen=True)
class Figure:
    """Which figure of a record is meant: what measured it, and in which phase."""

    metric: Metric
    step: Step | None = None
    phase: Phase | None = None
    """None stands for the highest of all phases."""

    @property
    def unit(self) -> Literal["bytes", "ms"]:
        """The unit that the figure is counted in."""
        return "ms" if self.metric is Metric.TIME else "bytes"


@dataclass(frozen=True)
class Change:
    """The old and the new value of a figure, and whether its tolerance allows the change."""

    figure: Figure
    old: float
    new: float
    tolerance: Tolerance
    verdict: Verdict
    p_value: float | None = None
    """For times: how likely samples differ this much by chance."""

    @property
    def share(self) -> float | None:
        """The growth as a share of the old value; None where that is zero."""
        return (self.new - self.old) / self.old if self.old else None

    @property
    def is_gated(self) -> bool:
        """Whether the verdict decides about the exit code."""
        return self.tolerance.gate


def figures(record: Record) -> dict[Figure, float]:
    """Return every figure of a record that is compared: bytes, and the median time of a
    warm step.
    """
    found: dict[Figure, float] = {}
    memory, allocator = record.memory, record.memory.allocator
    if allocator is not None:
        predicted = allocator.source == "fake-tensor"
        metric = Metric.PREDICTED if predicted else Metric.ALLOCATED
        found[Figure(metric)] = allocator.peak_allocated_bytes
        for step, parts in (("cold", allocator.cold), ("warm", allocator.warm)):
            for part in parts:
                key = Figure(metric, "cold" if step == "cold" else "warm", part.phase)
                found[key] = max(part.allocated_bytes, found.get(key, 0))
        if allocator.peak_reserved_bytes is not None:
            found[Figure(Metric.RESERVED)] = allocator.peak_reserved_bytes
    if memory.predicted_peak_bytes is not None:
        found.setdefault(Figure(Metric.PREDICTED), memory.predicted_peak_bytes)
    if memory.nvml is not None and memory.nvml.process_peak_bytes is not None:
        found[Figure(Metric.NVML)] = memory.nvml.process_peak_bytes
    if memory.host is not None:
        found[Figure(Metric.RESIDENT)] = memory.host.peak_bytes
    if samples_ms(record):
        found[Figure(Metric.TIME)] = median(samples_ms(record))
    return found


def samples_ms(record: Record) -> list[float]:
    """Return the times of the warm steps."""
    return [] if record.timing is None else [sample.total_ms for sample in record.timing.warm]


def change_of(
    figure: Figure, old: float, new: float, tolerance: Tolerance, samples: tuple[list[float], ...]
) -> Change:
    """Compare the old and the new value of a figure, and judge the change.

    ``samples`` are the times of both records. A time counts as changed only where its median left
    the tolerance and the samples differ by more than chance (Mann-Whitney's test, one-sided).
    """
    verdict = Verdict.OK
    if not tolerance.allows(old, new):
        verdict = Verdict.REGRESSION
    elif not tolerance.allows(new, old):
        verdict = Verdict.IMPROVEMENT
    if figure.metric is not Metric.TIME:
        return Change(figure, old, new, tolerance, verdict)
    p_value = _p_value(*samples) if new >= old else _p_value(*reversed(samples))
    if p_value >= _SIGNIFICANCE:
        verdict = Verdict.OK
    return Change(figure, old, new, tolerance, verdict, p_value)


def _p_value(faster: list[float], slower: list[float]) -> float:
    """Return how likely it is by chance that ``slower`` is so much slower."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(slower, faster, alternative="greater").pvalue)


_RAN_OUT = frozenset({Outcome.DEVICE_OOM, Outcome.HOST_OOM, Outcome.OVER_BUDGET})


class Status(StrEnum):
    """How a case compares with the baseline."""

    NOW_OUT_OF_MEMORY = "now-out-of-memory"
    REGRESSION = "regression"
    NOT_COMPARABLE = "not-comparable"
    MISSING = "missing"
    NOW_FAILS = "now-fails"
    """The case ended in an error, a signal or a time limit, so that there is nothing to compare."""
    NEW = "new"
    """The older run has no such case."""
    NOW_FITS = "now-fits"
    NOW_MEASURED = "now-measured"
    """The older run has it without a figure, for a reason other than memory."""
    IMPROVEMENT = "improvement"
    NOT_MEASURED = "not-measured"
    """Neither run has a figure of it, so nothing was compared."""
    OK = "ok"


@dataclass(frozen=True)
class CaseComparison:
    """The old and the new record of one case."""

    status: Status
    old: Record | None
    new: Record | None
    changes: tuple[Change, ...] = ()
    """The figures that both records have and that may be compared."""
    differs: tuple[Difference, ...] = ()
    """What forbids comparing the exact figures."""
    not_compared: tuple[tuple[Metric, tuple[Difference, ...]], ...] = ()
    """The inexact metrics that were passed over because the machines differ."""
    lost: tuple[Metric, ...] = ()
    """The metrics that the baseline has and this run hasn't."""
    growths: tuple[Growth, ...] = ()
    """The kinds of memory that grew at the peak, largest growth first."""
    place_growths: tuple[Growth, ...] = ()
    """The same for each part of the model, at the predicted peak."""

    @property
    def case(self) -> Case:
        """The case, as the newer of the two records has it."""
        record = self.new or self.old
        assert record is not None
        return record.case

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Gated figures that grew by more than their tolerance, the worst first."""
        return _by_size(c for c in self.changes if c.verdict is Verdict.REGRESSION and c.is_gated)

    @property
    def improvements(self) -> tuple[Change, ...]:
        """Gated figures that shrank by more than their tolerance, the best first."""
        return _by_size(c for c in self.changes if c.verdict is Verdict.IMPROVEMENT and c.is_gated)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared: the cases in the order of the new run, then those that it lacks."""

    cases: tuple[CaseComparison, ...]

    def having(self, *statuses: Status) -> tuple[CaseComparison, ...]:
        """Return the cases that have one of these statuses."""
        return tuple(case for case in self.cases if case.status in statuses)

    @property
    def worst_first(self) -> tuple[CaseComparison, ...]:
        """Return the cases by how much they matter: by status, then by growth."""
        order = list(Status)
        return tuple(
            sorted(self.cases, key=lambda case: (order.index(case.status), -_growth(case)))
        )


def compare(
    old: Sequence[Record],
    new: Sequence[Record],
    tolerances: Tolerances | None = None,
    allowed: frozenset[str] = frozenset(),
) -> Comparison:
    """Compare a run with an older one, case by case.

    Cases are paired by suite, variant, workload, batch, length and seed. Of several records of one
    case the last counts. ``allowed`` names differences of environment or case that are accepted.
    """
    before, now = ({_place(r.case): r for r in records} for records in (old, new))
    tolerances = tolerances or Tolerances()
    pairs = [(before.get(place), record) for place, record in now.items()]
    found = [_compared(record, newer, tolerances, allowed) for record, newer in pairs]
    gone = [CaseComparison(Status.MISSING, r, None) for p, r in before.items() if p not in now]
    return Comparison((*found, *gone))


def foresee(
    old: Sequence[Record],
    cases: Iterable[Case],
    environment: Environment,
    allowed: frozenset[str] = frozenset(),
) -> Comparison:
    """The cases of both runs as they would be compared, before anything is measured.

    What forbids it is known by then: the environment, and what the suite asks for. Cases that may
    be compared count as not measured.
    """
    unmeasured = [
        Record(
            case_id=case.id,
            case=case,
            outcome=Outcome.SKIPPED,
            started_at="",
            wall_ms=0.0,
            environment=environment,
        )
        for case in cases
    ]
    pairs = [c for c in compare(old, unmeasured, allowed=allowed).cases if c.old and c.new]
    return Comparison(
        tuple(
            found
            if found.status is Status.NOT_COMPARABLE
            else CaseComparison(Status.NOT_MEASURED, found.old, found.new)
            for found in (replace(pair, not_compared=()) for pair in pairs)
        )
    )


def _place(case: Case) -> tuple[object, ...]:
    return case.suite, case.variant, case.workload, case.batch, case.length, case.seed


def _compared(
    old: Record | None, new: Record, tolerances: Tolerances, allowed: frozenset[str]
) -> CaseComparison:
    if old is None:
        return CaseComparison(Status.NEW, None, new)
    before, now = figures(old), figures(new)
    metrics = dict.fromkeys(figure.metric for figure in before)
    forbidden = {
        metric: tuple(d for d in differences(old, new, metric) if not accepted(d, allowed))
        for metric in metrics
    }
    both_ended = old.outcome is Outcome.OK and new.outcome is Outcome.OK
    changes = tuple(
        change_of(
            figure,
            before[figure],
            now[figure],
            tolerances.of(new.case, figure.metric),
            (samples_ms(old), samples_ms(new)),
        )
        for figure in before
        if both_ended and figure in now and not forbidden[figure.metric]
    )
    # Whether a case fits is decided by what the allocator does, so by what that depends on.
    decisive = [metric for metric in metrics if metric.is_exact] or [Metric.ALLOCATED]
    differs = dict.fromkeys(
        difference
        for metric in decisive
        for difference in forbidden.get(metric, differences(old, new, metric))
        if not accepted(difference, allowed)
    )
    result = CaseComparison(
        Status.OK,
        old,
        new,
        changes,
        tuple(differs),
        tuple((m, f) for m, f in forbidden.items() if f and not m.is_exact),
        _lost(old, new, metrics),
        growths(old, new),
        place_growths(old, new),
    )
    return _with_status(result)


def _with_status(found: CaseComparison) -> CaseComparison:
    assert found.old is not None
    assert found.new is not None
    then, now = found.old.outcome, found.new.outcome
    if found.regressions:
        status = Status.REGRESSION
    elif found.differs:
        status = Status.NOT_COMPARABLE
    elif then is Outcome.OK and now is not Outcome.OK:
        status = Status.NOW_OUT_OF_MEMORY if now in _RAN_OUT else Status.NOW_FAILS
    elif then is not Outcome.OK and now is Outcome.OK:
        status = Status.NOW_FITS if then in _RAN_OUT else Status.NOW_MEASURED
    elif then is not Outcome.OK:
        status = Status.NOT_MEASURED
    elif not any(c.figure.metric.is_exact for c in found.changes):
        status = Status.MISSING
    else:
        status = Status.IMPROVEMENT if found.improvements else Status.OK
    return replace(found, status=status)


def _lost(old: Record, new: Record, metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    if old.outcome is not Outcome.OK or new.outcome is not Outcome.OK:
        return ()
    have = {figure.metric for figure in figures(new)}
    return tuple(metric for metric in metrics if metric not in have)


def _by_size(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Put exact figures first, whole peaks before single phases, then larger shares of growth."""
    return tuple(
        sorted(
            changes,
            key=lambda c: (
                not c.figure.metric.is_exact,
                c.figure.phase is not None,
                -abs(c.share or 0.0),
            ),
        )
    )


def _growth(case: CaseComparison) -> float:
    return max((change.share or 0.0 for change in case.changes if change.is_gated), default=0.0)
