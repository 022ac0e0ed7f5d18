"""Decides which cases of a run are not worth starting, and when a time limit is no evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from reformer_bench.run.executor import COUNTED_STEP_MS, n_warmup_steps
from reformer_bench.schema.case import Case
from reformer_bench.schema.prediction import Predictions
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.schema.units import format_bytes, format_tokens

_ENDS = {
    Outcome.DEVICE_OOM: "ran out of memory",
    Outcome.HOST_OOM: "ran out of memory",
    Outcome.OVER_BUDGET: "would not fit",
    Outcome.TIMEOUT: "met its time limit",
    Outcome.KILLED: "was killed",
}

# How many times faster than its limit a case must be expected to make the limit doubtful: shorter
# lengths of the same model tell it well, other models only roughly.
_OWN_MARGIN = 2.0
_OTHERS_MARGIN = 8.0

# Bounds of d log time / d log operations, and of d log time / d log length where operations are
# not known: what two lengths seem to show is not believed beyond them.
_POWERS_OF_OPERATIONS = (0.8, 1.3)
_POWERS_OF_LENGTH = (0.5, 2.2)
_MOST_SLOWDOWN = 3.0
_USUAL_SLOWDOWN = 1.1
"""How much slower a step under the probes usually is."""


def stopped_by(case: Case, records: Iterable[Record]) -> Record | None:
    """Return the record of the shortest case of the same series that ran out before this length."""
    return min(
        (
            record
            for record in records
            if record.outcome.is_limit
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


def over_budget_message(peak_bytes: int, budget_bytes: int) -> str:
    """Say why a case is not started that was predicted not to fit."""
    return (
        f"not started: predicted to take {format_bytes(peak_bytes)}, "
        f"more than the {format_bytes(budget_bytes)} available"
    )


@dataclass(frozen=True)
class Estimate:
    """How long a whole case may take."""

    ms: float
    is_own: bool
    """Whether shorter cases of its series tell it; else the speed of other models does, which is a
    rough guess: they differ by a factor of four and more."""
    disturbed: bool
    """Whether all the cases that it is taken from were disturbed."""

    def too_slow_message(self, case_timeout_s: float) -> str:
        """Say why a case is not started that would meet its time limit."""
        return (
            f"not started: predicted to take {self.ms / 1e3:.0f} s, "
            f"more than the time limit of a case of {case_timeout_s:.0f} s"
        )

    def too_late_message(self, left_s: float, total_s: float | None) -> str:
        """Say why a case is not started that would not end within the run's time."""
        return (
            f"not started: predicted to take {self.ms / 1e3:.0f} s, with {left_s:.0f} s left of "
            f"the run's {total_s:.0f} s"
        )


def doubt(record: Record, expected: Estimate | None) -> str | None:
    """Say why a time limit is no evidence that the case takes so long; None where it is evidence.

    ``expected`` is what the case was to take by its operations and the speed reached in the run.
    """
    if record.outcome is not Outcome.TIMEOUT or record.wall_ms == 0.0:
        return None
    load, n_cores = record.load, record.environment.cpu_count
    if load is not None and record.was_disturbed:
        taken = load.other_cores + load.stolen_cores
        cores = "1 core" if n_cores == 1 else f"{n_cores} cores"
        return f"meanwhile other processes took {taken:.1f} of {cores}"
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


class Forecast:
    """What the records of a run and the predicted operations say about cases to come."""

    def __init__(
        self, records: Sequence[Record], predictions: Predictions, limits: DeviceTable
    ) -> None:
        self._ended = [record for record in records if record.finished and _step_ms(record) > 0.0]
        self._predictions = predictions
        self._limits = limits

    def of(self, case: Case) -> Estimate | None:
        """Return the time of a case; None where nothing is known that it could be taken from."""
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
        """Return the time of a case at the speed of other models at the nearest length."""
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
        distances = [abs(math.log(record.case.length / case.length)) for record in known]
        ms_per_operation = median(
            _step_ms(record) / (self._operations_of(record) or 1)
            for record, distance in zip(known, distances, strict=True)
            if distance == min(distances)
        )
        return Estimate(self._case_ms(operations * ms_per_operation, None), False, disturbed)

    def _continued(self, known: list[Record], case: Case) -> float:
        """Return the time of a step, in milliseconds, from shorter lengths in their order.

        It grows as the operations do, or as the power of them that the last two lengths show; where
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
            power = math.log(_step_ms(last) / _step_ms(before))
            power /= math.log(size[last.case_id] / size[before.case_id])
            power = min(bounds[1], max(bounds[0], power))
        return float(_step_ms(last) * (size[case.id] / size[last.case_id]) ** power)

    def _case_ms(self, step_ms: float, last: Record | None) -> float:
        """Return the time of a whole case: steps under the probes, for counting and for warming
        up, and samples.

        What a case took beyond these (starting, building, taking down) it takes again.
        """
        seen = self._ended if last is None else [last]
        slowdown = _USUAL_SLOWDOWN if last is None else _slowdown(last)
        beyond = median(r.wall_ms - self._steps_ms(_step_ms(r), _slowdown(r)) for r in seen)
        return self._steps_ms(step_ms, slowdown) + max(0.0, beyond)

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
        return self._operations(record.case_id) or record.flops


def _step_ms(record: Record) -> float:
    """Return the time of a step: a warm one's, or the cold one's where there is no other."""
    cold_ms = 0.0 if record.timing is None else record.timing.cold.total_ms
    return cold_ms if record.step_ms is None else record.step_ms


def _slowdown(record: Record) -> float:
    """Return how much slower a step was under the probes than a timed one."""
    assert record.timing is not None
    return min(_MOST_SLOWDOWN, max(1.0, record.timing.cold.total_ms / _step_ms(record)))


def _undisturbed(records: list[Record]) -> tuple[list[Record], bool]:
    """Return the records that were not disturbed, or all where every one was, and whether."""
    calm = [record for record in records if not record.was_disturbed]
    return (calm, False) if calm else (list(records), True)
