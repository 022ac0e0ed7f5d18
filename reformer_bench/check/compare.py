"""Comparison of two runs: what became of each case, of each of its figures, and what grew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, TypeVar

from reformer_bench.check.comparability import Difference, differences
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Environment, Outcome, Phase, Record
from reformer_bench.schema.tolerances import Metric, Tolerance, Tolerances

_SIGNIFICANCE = 0.01
"""How unlikely slower samples must be by chance, for them to count as slower."""

FigureKey = tuple[Metric, Literal["cold", "warm"] | None, Phase | None]
"""A metric, of one phase of the cold or of a warm step; Nones stand for the highest of all."""


def figures(record: Record) -> dict[FigureKey, float]:
    """Return every figure of a record that is compared: bytes, and the median time of a
    warm step.
    """
    found: dict[FigureKey, float] = {}
    memory, allocator = record.memory, record.memory.allocator
    if allocator is not None:
        metric = Metric.PREDICTED if record.is_predicted else Metric.ALLOCATED
        found[metric, None, None] = allocator.peak_allocated_bytes
        for part in allocator.cold:
            key: FigureKey = (metric, "cold", part.phase)
            found[key] = max(part.allocated_bytes, found.get(key, 0))
        for part in allocator.warm:
            key = (metric, "warm", part.phase)
            found[key] = max(part.allocated_bytes, found.get(key, 0))
    for metric, value in (
        (Metric.RESERVED, None if allocator is None else allocator.peak_reserved_bytes),
        (Metric.PREDICTED, memory.predicted_peak_bytes),
        (Metric.NVML, None if memory.nvml is None else memory.nvml.process_peak_bytes),
        (Metric.RESIDENT, None if memory.host is None else memory.host.grown_bytes),
        (Metric.TIME, record.step_ms),
    ):
        if value is not None:
            found.setdefault((metric, None, None), value)
    return found


class ChangeKind(StrEnum):
    """How a figure has changed."""

    OK = "ok"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"


@dataclass(frozen=True)
class Change:
    """The old and the new value of a figure, and whether its tolerance allows the change."""

    metric: Metric
    step: Literal["cold", "warm"] | None
    phase: Phase | None
    """None stands for the highest of all phases."""
    old: float
    new: float
    tolerance: Tolerance
    kind: ChangeKind
    p_value: float | None = None
    """For times: how likely samples differ this much by chance."""

    @property
    def share(self) -> float | None:
        """The growth as a share of the old value; None where that is zero."""
        return (self.new - self.old) / self.old if self.old else None


def _change(
    key: FigureKey, old: Record, new: Record, values: tuple[float, float], tolerance: Tolerance
) -> Change:
    """Compare the old and the new value of a figure, and judge the change.

    A time counts as changed only where its median left the tolerance and the samples differ by more
    than chance (Mann-Whitney's test, one-sided).
    """
    kind = ChangeKind.OK
    if not tolerance.allows(*values):
        kind = ChangeKind.REGRESSION
    elif not tolerance.allows(*reversed(values)):
        kind = ChangeKind.IMPROVEMENT
    if key[0] is not Metric.TIME:
        return Change(*key, *values, tolerance, kind)
    from scipy.stats import mannwhitneyu

    less, more = (old, new) if values[1] >= values[0] else (new, old)
    samples = more.step_samples_ms, less.step_samples_ms
    p_value = float(mannwhitneyu(*samples, alternative="greater").pvalue)
    kind = kind if p_value < _SIGNIFICANCE else ChangeKind.OK
    return Change(*key, *values, tolerance, kind, p_value)


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
    before, now = (
        None if parts is None else {None: {k.removesuffix("_bytes"): n for k, n in parts}}
        for parts in (old.breakdown, new.breakdown)
    )
    return _grown(before, now)


def place_growths(old: Record, new: Record) -> tuple[Growth, ...]:
    """Return the same for each part of the model, where both records tell the parts of the
    predicted peak.
    """
    return _grown(old.memory.predicted_places, new.memory.predicted_places)


_Place = TypeVar("_Place", bound=str | None)
_Places = Mapping[_Place, Mapping[str, int]]


def _grown(before: _Places[_Place] | None, now: _Places[_Place] | None) -> tuple[Growth, ...]:
    if before is None or now is None:
        return ()
    keys = dict.fromkeys(
        (place, kind) for places in (before, now) for place in places for kind in places[place]
    )
    found = [
        Growth(kind, before.get(place, {}).get(kind, 0), now.get(place, {}).get(kind, 0), place)
        for place, kind in keys
    ]
    return tuple(sorted((g for g in found if g.bytes > 0), key=lambda g: -g.bytes))


class Status(StrEnum):
    """How a case compares with the baseline, the worst first."""

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
        return self._gated(ChangeKind.REGRESSION)

    @property
    def improvements(self) -> tuple[Change, ...]:
        """Gated figures that shrank by more than their tolerance, the best first."""
        return self._gated(ChangeKind.IMPROVEMENT)

    def _gated(self, kind: ChangeKind) -> tuple[Change, ...]:
        """Put exact figures first, whole peaks before single phases, then larger shares."""
        return tuple(
            sorted(
                (c for c in self.changes if c.kind is kind and c.tolerance.gate),
                key=lambda c: (not c.metric.is_exact, c.phase is not None, -abs(c.share or 0.0)),
            )
        )


@dataclass(frozen=True)
class Comparison:
    """Two runs compared: the cases in the order of the new run, then those that it lacks."""

    cases: tuple[CaseComparison, ...]

    def having(self, *statuses: Status) -> tuple[CaseComparison, ...]:
        """Return the cases that have one of these statuses."""
        return tuple(case for case in self.cases if case.status in statuses)

    @property
    def worst_first(self) -> tuple[CaseComparison, ...]:
        """The cases by how much they matter: by status, then by growth."""
        order = list(Status)

        def badness(case: CaseComparison) -> tuple[int, float]:
            shares = (change.share or 0.0 for change in case.changes if change.tolerance.gate)
            return order.index(case.status), -max(shares, default=0.0)

        return tuple(sorted(self.cases, key=badness))


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
    before, now = (
        {(*record.case.series, record.case.length, record.case.seed): record for record in records}
        for records in (old, new)
    )
    tolerances = tolerances or Tolerances()
    found = [_compared(before.get(key), r, tolerances, allowed) for key, r in now.items()]
    gone = [CaseComparison(Status.MISSING, r, None) for key, r in before.items() if key not in now]
    return Comparison((*found, *gone))


def foresee(
    old: Sequence[Record],
    cases: Iterable[Case],
    environment: Environment,
    allowed: frozenset[str] = frozenset(),
) -> Comparison:
    """Compare the cases of both runs as far as that can be done before anything is measured.

    What forbids it is known by then: the environment, and what the suite asks for. Cases that may
    be compared count as not measured.
    """
    unmeasured = [
        Record.not_measured(case, Outcome.SKIPPED, None, environment, started_at="")
        for case in cases
    ]
    return Comparison(
        tuple(
            replace(pair, not_compared=())
            if pair.status is Status.NOT_COMPARABLE
            else CaseComparison(Status.NOT_MEASURED, pair.old, pair.new)
            for pair in compare(old, unmeasured, allowed=allowed).cases
            if pair.old and pair.new
        )
    )


def _compared(
    old: Record | None, new: Record, tolerances: Tolerances, allowed: frozenset[str]
) -> CaseComparison:
    if old is None:
        return CaseComparison(Status.NEW, None, new)
    before, now = figures(old), figures(new)
    metrics = list(dict.fromkeys(metric for metric, *_ in before))
    have = {metric for metric, *_ in now}
    forbidden = {m: differences(old, new, m, allowed) for m in (*metrics, Metric.ALLOCATED)}
    both_finished = old.finished and new.finished
    # Whether a case fits is decided by what the allocator does, so by what that depends on.
    decisive = [metric for metric in metrics if metric.is_exact] or [Metric.ALLOCATED]
    found = CaseComparison(
        Status.OK,
        old,
        new,
        changes=tuple(
            _change(key, old, new, (value, now[key]), tolerances.of(new.case, key[0]))
            for key, value in before.items()
            if both_finished and key in now and not forbidden[key[0]]
        ),
        differs=tuple(dict.fromkeys(one for metric in decisive for one in forbidden[metric])),
        not_compared=tuple((m, forbidden[m]) for m in metrics if forbidden[m] and not m.is_exact),
        lost=tuple(m for m in metrics if both_finished and m not in have),
        growths=growths(old, new),
        place_growths=place_growths(old, new),
    )
    return replace(found, status=_status(found, old, new))


def _status(found: CaseComparison, old: Record, new: Record) -> Status:
    if found.regressions:
        return Status.REGRESSION
    if found.differs:
        return Status.NOT_COMPARABLE
    if old.finished and not new.finished:
        return Status.NOW_OUT_OF_MEMORY if new.outcome.is_too_large else Status.NOW_FAILS
    if new.finished and not old.finished:
        return Status.NOW_FITS if old.outcome.is_too_large else Status.NOW_MEASURED
    if not old.finished:
        return Status.NOT_MEASURED
    if not any(change.metric.is_exact for change in found.changes):
        return Status.MISSING
    return Status.IMPROVEMENT if found.improvements else Status.OK
