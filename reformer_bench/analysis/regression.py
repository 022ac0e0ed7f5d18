"""Regression: two runs compared case by case, each with a status and its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from reformer_bench.analysis.causes import Growth, growths, place_growths
from reformer_bench.analysis.changes import Change, Verdict, change_of, figures, samples_ms
from reformer_bench.analysis.comparability import Difference, accepted, differences
from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Environment, Outcome, Record
from reformer_bench.spec.tolerances import Metric, Tolerances

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
