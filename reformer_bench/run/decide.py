"""Rules for which cases of a run are not worth starting, and the words that say why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from reformer_bench.run.executor import COUNTED_STEP_MS, n_warmup_steps
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Environment, Load, Outcome, Predictions, Record
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.schema.units import format_tokens

STOPPING = frozenset(
    {
        Outcome.DEVICE_OOM,
        Outcome.HOST_OOM,
        Outcome.OVER_BUDGET,
        Outcome.TIMEOUT,
        # A signal that nobody owns up to is most often the kernel short of memory.
        Outcome.KILLED,
    }
)
"""The outcomes after which longer cases of the same series are not tried."""

_ENDS = {
    Outcome.DEVICE_OOM: "ran out of memory",
    Outcome.HOST_OOM: "ran out of memory",
    Outcome.OVER_BUDGET: "would not fit",
    Outcome.TIMEOUT: "met its time limit",
    Outcome.KILLED: "was killed",
}


def stopped_by(case: Case, records: Iterable[Record]) -> Record | None:
    """Return the record of the shortest case of the same series that ran out before this length."""
    return min(
        (
            record
            for record in records
            if record.outcome in STOPPING
            and record.case.series == case.series
            and record.case.length < case.length
        ),
        key=lambda record: record.case.length,
        default=None,
    )


def skip_message(stop: Record) -> str:
    """Say why a longer case was not tried."""
    return (
        f"not tried: {stop.case.variant} {_ENDS[stop.outcome]} at "
        f"{format_tokens(stop.case.length)} tokens (case {stop.case_id})"
    )


def used_up_message(total_s: float | None) -> str:
    """Why no more case is started once the run's time is over."""
    return f"not started: the run's {total_s:.0f} s are used up"


def too_slow_message(predicted_ms: float, case_timeout_s: float) -> str:
    """Why a case is not started that would meet its time limit."""
    return (
        f"not started: predicted to take {predicted_ms / 1e3:.0f} s, "
        f"more than the time limit of a case of {case_timeout_s:.0f} s"
    )


def too_late_message(predicted_ms: float, left_s: float, total_s: float | None) -> str:
    """Why a case is not started that would not end within the run's time."""
    return (
        f"not started: predicted to take {predicted_ms / 1e3:.0f} s, with {left_s:.0f} s left of "
        f"the run's {total_s:.0f} s"
    )


# Bounds of d log time / d log operations, and of d log time / d log length where operations are
# not known: what two lengths seem to show is not believed beyond them.
_POWERS_OF_OPERATIONS = (0.8, 1.3)
_POWERS_OF_LENGTH = (0.5, 2.2)
_MOST_SLOWDOWN = 3.0
_USUAL_SLOWDOWN = 1.1
"""Of a step under the probes."""


@dataclass(frozen=True)
class Estimate:
    """How long a whole case may take."""

    ms: float
    is_own: bool
    """From shorter cases of its series; else from the speed of other models, a rough guess: they
    differ by a factor of four and more."""
    disturbed: bool
    """From cases that were disturbed, all of them."""


class Forecast:
    """What the records of a run and the predicted operations say about cases to come."""

    def __init__(
        self, records: Sequence[Record], predictions: Predictions, limits: DeviceTable
    ) -> None:
        self._ended = [
            record
            for record in records
            if record.outcome is Outcome.OK and (_step_ms(record) or 0.0) > 0.0
        ]
        self._predictions = predictions
        self._limits = limits

    def of(self, case: Case) -> Estimate | None:
        """The time of a case; None where nothing is known that it could be taken from."""
        own = [
            record
            for record in self._ended
            if record.case.series == case.series and record.case.length < case.length
        ]
        if not own:
            return self.roughly(case)
        known, disturbed = _undisturbed(own)
        known.sort(key=lambda record: record.case.length)
        return Estimate(self._case_ms(self._continued(known, case), known[-1]), True, disturbed)

    def roughly(self, case: Case) -> Estimate | None:
        """The time of a case at the speed of other models at the nearest length."""
        operations = self._operations(case.id)
        others = [
            record
            for record in self._ended
            if record.case.workload == case.workload
            and record.case.series != case.series
            and self._operations_of(record)
        ]
        if operations is None or not others:
            return None
        known, disturbed = _undisturbed(others)
        distance = min(_distance(record, case) for record in known)
        near = [record for record in known if _distance(record, case) == distance]
        ms_per_operation = median(_step(r) / (self._operations_of(r) or 1) for r in near)
        return Estimate(self._case_ms(operations * ms_per_operation, None), False, disturbed)

    def _continued(self, known: list[Record], case: Case) -> float:
        """The time of a step, in milliseconds, from shorter lengths in their order.

        Grows as the operations do, or as the power of them that the last two lengths show; where
        operations are not known, as the length. Underestimating costs a killed case and
        overestimating a result.
        """
        last = known[-1]
        size: dict[str, float] = {case.id: case.length}
        size |= {record.case_id: record.case.length for record in known}
        bounds, power = _POWERS_OF_LENGTH, 1.0
        operations = {case.id: self._operations(case.id)}
        operations |= {record.case_id: self._operations_of(record) for record in known[-2:]}
        if all(operations.values()):
            size |= {key: float(count or 0) for key, count in operations.items()}
            bounds = _POWERS_OF_OPERATIONS
        if len(known) > 1 and size[known[-2].case_id] < size[last.case_id]:
            before = known[-2]
            power = math.log(_step(last) / _step(before))
            power /= math.log(size[last.case_id] / size[before.case_id])
            power = min(bounds[1], max(bounds[0], power))
        return float(_step(last) * (size[case.id] / size[last.case_id]) ** power)

    def _case_ms(self, step_ms: float, last: Record | None) -> float:
        """A whole case: steps under the probes, for counting and for warming up, and samples.

        What a case took beyond these (starting, building, taking down) it takes again.
        """
        if last is not None:
            beyond = last.wall_ms - self._steps_ms(_step(last), _slowdown(last))
            return self._steps_ms(step_ms, _slowdown(last)) + max(0.0, beyond)
        beyond = median(r.wall_ms - self._steps_ms(_step(r), _slowdown(r)) for r in self._ended)
        return self._steps_ms(step_ms, _USUAL_SLOWDOWN) + max(0.0, beyond)

    def _steps_ms(self, step_ms: float, slowdown: float) -> float:
        limits = self._limits
        if limits.max_samples == 0:
            return step_ms * slowdown
        samples = limits.sample_time_s * 1e3 / step_ms
        samples = max(limits.min_samples, min(limits.max_samples, math.ceil(samples)))
        counted = step_ms <= COUNTED_STEP_MS
        warmup = n_warmup_steps(limits.sample_time_s, step_ms)
        return step_ms * (2 * slowdown + counted + warmup + samples)

    def _operations(self, case_id: str) -> int | None:
        predicted = self._predictions.get(case_id)
        return None if predicted is None else predicted.flops

    def _operations_of(self, record: Record) -> int | None:
        counted = None if record.timing is None else record.timing.flops
        return self._operations(record.case_id) or counted


def _step_ms(record: Record) -> float | None:
    if record.timing is None:
        return None
    warm = [sample.total_ms for sample in record.timing.warm]
    return median(warm) if warm else record.timing.cold.total_ms


def _step(record: Record) -> float:
    step_ms = _step_ms(record)
    assert step_ms is not None
    return step_ms


def _slowdown(record: Record) -> float:
    """Of a step under the probes against a timed one."""
    assert record.timing is not None
    return min(_MOST_SLOWDOWN, max(1.0, record.timing.cold.total_ms / _step(record)))


def _distance(record: Record, case: Case) -> float:
    return abs(math.log(record.case.length / case.length))


def _undisturbed(records: list[Record]) -> tuple[list[Record], bool]:
    """The records that were not disturbed, or all of them where every one was, and whether."""
    calm = [record for record in records if not record.was_disturbed]
    return (calm, False) if calm else (list(records), True)


# How many times faster than its limit a case must be expected to make the limit doubtful: shorter
# lengths of the same model tell it well, other models only roughly.
_OWN_MARGIN = 2.0
_OTHERS_MARGIN = 8.0


def doubt(record: Record, expected: Estimate | None) -> str | None:
    """Why a time limit is no evidence that the case takes so long, in words; None: it is.

    ``expected`` is what the case was to take by its operations and the speed reached in the run.
    """
    if record.outcome is not Outcome.TIMEOUT or record.wall_ms == 0.0:
        return None
    if record.load is not None and record.was_disturbed:
        return taken_words(record.load, record.environment)
    if expected is None:
        return None
    seconds = max(1.0, expected.ms / 1e3)
    if expected.is_own and expected.ms * _OWN_MARGIN < record.wall_ms:
        return f"by its shorter lengths it takes {seconds:.0f} s"
    if not expected.is_own and expected.ms * _OTHERS_MARGIN < record.wall_ms:
        return f"at the speed of the other models it takes {seconds:.0f} s"
    return None


def hopeless(expected: Estimate | None, roughly: Estimate | None, limit_s: float) -> bool:
    """Whether a case is not going to end within a limit, as far as can be known.

    Lengths that were all measured under a disturbance don't tell by themselves: the speed of other
    models, ``roughly``, must not say that the case takes far less.
    """
    if expected is None or not expected.is_own or expected.ms / 1e3 <= limit_s:
        return False
    if not expected.disturbed or roughly is None:
        return True
    return roughly.ms * _OTHERS_MARGIN >= limit_s * 1e3


def taken_words(load: Load, environment: Environment) -> str:
    """What others took meanwhile."""
    taken = load.other_cores + load.stolen_cores
    cores = "1 core" if environment.cpu_count == 1 else f"{environment.cpu_count} cores"
    return f"meanwhile other processes took {taken:.1f} of {cores}"
