"""A session decides case by case what is started, and writes each record as its case ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reformer_bench.run.decide import (
    Forecast,
    doubt,
    hopeless,
    over_budget_message,
    skip_message,
    stopped_by,
)
from reformer_bench.run.executor import Executor, WorkOrder
from reformer_bench.run.expand import Plan
from reformer_bench.schema.case import Case
from reformer_bench.schema.prediction import Predictions
from reformer_bench.schema.record import Outcome, Record, latest_of_each
from reformer_bench.store import RunInfo, RunWriter

# Once when the other models of its length are done, and once more at the end of the run.
_MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Standing:
    """Where a session stands when a case starts, and when one has ended."""

    case: Case
    records: tuple[Record, ...]
    """What has just been written, several where cases were not started; none where the case has
    just been started."""
    done: int
    """Cases that need no more attempt, those of an earlier run of the folder included."""
    total: int
    elapsed_s: float
    left_s: float | None
    """A forecast, with what has just been started; None while nothing is known."""
    peak_bytes: int | None
    """The highest allocator peak of any case so far."""


class Session:
    """One pass over the cases of a plan that have no record yet, part by part.

    A case that meets its time limit where that is doubtful is tried again, after the other models
    of its length and, the last time, at the end of its part; its longer lengths wait for that.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        writer: RunWriter,
        info: RunInfo,
        *,
        predictions: Predictions | None = None,
        spent_s: float = 0.0,
        earlier: Sequence[Record] = (),
        reopened: Sequence[Record] = (),
    ) -> None:
        """``earlier`` are records that stand; ``reopened`` those whose cases are run again.

        ``spent_s`` was taken before anything was measured. It counts against the time of a plan of
        a single part; of several, no one is charged with what was done for all.
        """
        self._plan = plan
        self._executor = executor
        self._writer = writer
        self._info = info
        self._predictions = predictions or {}
        self._spent_s = spent_s if len(plan.parts) == 1 else 0.0
        self.records = list(earlier)
        """The latest record of every case of the run, in the order of their first attempts."""
        self._total = len({case.id for case in plan.cases} | {r.case_id for r in earlier})
        self._attempts = {record.case_id: record.attempt for record in reopened}
        self._tries: dict[str, int] = {}
        """How often each case was run in this session, by its id."""
        self._pending: list[Case] = []
        """Cases of the part at hand, in the order in which they are looked at."""
        self._waiting = 0
        """Cases of the later parts."""
        self._later_s = 0.0

    def run(self) -> Iterator[Standing]:
        """Measure what is pending, and tell of each case as it starts and as it ends.

        Every record is on disk, and in ``records``, when it is told of.
        """
        parts = self._plan.parts
        for number, part in enumerate(parts):
            known = {record.case_id for record in self.records}
            later = [case for one in parts[number + 1 :] for case in one.cases]
            self._pending = [case for case in part.cases if case.id not in known]
            self._waiting = sum(case.id not in known for case in later)
            self._later_s = sum(one.expected_s for one in parts[number + 1 :])
            self._limits = part.limits
            self._began = time.monotonic() - self._spent_s
            yield from self._run_part()

    def _run_part(self) -> Iterator[Standing]:
        while self._pending:
            orders: list[WorkOrder] = []
            while self._pending and (not orders or self._executor.takes_all):
                case = self._pending[0]
                order = self._order(case)
                refusal = self._refusal(case)
                if refusal is None:
                    yield self._standing(case)
                    self._pending.pop(0)
                    orders.append(order)
                elif written := self._refuse(case, *refusal):
                    yield self._standing(case, *written)
            for record in self._executor.run(orders):
                yield self._finish(record)

    def _order(self, case: Case) -> WorkOrder:
        timeout_s, reason = self._limits.case_timeout_s, "the time limit of a case"
        left_s = self._time_left_s()
        if left_s is not None and left_s < timeout_s:
            timeout_s, reason = left_s, f"the run's {self._limits.total_time_s:.0f} s were used up"
        return WorkOrder(
            case=case,
            environment=self._info.environment,
            timeout_s=timeout_s,
            timeout_reason=reason,
            min_samples=self._limits.min_samples,
            max_samples=self._limits.max_samples,
            sample_time_s=self._limits.sample_time_s,
            memory_budget_bytes=self._info.memory_budget_bytes,
        )

    def _refusal(self, case: Case) -> tuple[Outcome, str] | None:
        """Return why a case is not to be started; None when it is."""
        peak = self._peak_over_budget(case)
        if peak is not None:
            return Outcome.OVER_BUDGET, over_budget_message(peak, self._budget_bytes or 0)
        left_s, total_s = self._time_left_s(), self._limits.total_time_s
        used_up = Outcome.TIMEOUT, f"not started: the run's {total_s or 0:.0f} s are used up"
        if left_s is not None and left_s <= 0:
            return used_up
        stop = stopped_by(case, self._evidence())
        if stop is not None:
            return Outcome.SKIPPED, skip_message(stop)
        forecast = self._forecast()
        expected, limit_s = forecast.of(case), self._limits.case_timeout_s
        if case.id in self._tries and left_s is not None and left_s < limit_s:
            # Another attempt that is cut short earlier than the last would tell nothing.
            return used_up
        if expected is None or not expected.is_own:
            return None
        if hopeless(expected, forecast.roughly(case), limit_s):
            return Outcome.TIMEOUT, expected.too_slow_message(limit_s)
        if left_s is not None and expected.ms / 1e3 > left_s:
            return Outcome.TIMEOUT, expected.too_late_message(left_s, total_s)
        return None

    def _refuse(self, case: Case, outcome: Outcome, message: str) -> list[Record]:
        """Write records for a case that is not started, and for the longer ones that follow."""
        written = self._write_unstarted(case, outcome, message)
        for longer in self._longer(case):
            refusal = self._refusal(longer)
            if refusal is None:
                break
            written += self._write_unstarted(longer, *refusal)
        return written

    def _write_unstarted(self, case: Case, outcome: Outcome, message: str) -> list[Record]:
        self._pending.remove(case)
        if case.id in self._tries:
            # What its last attempt came to says more.
            return []
        return [self._write(Record.not_measured(case, outcome, message, self._info.environment))]

    def _finish(self, record: Record) -> Standing:
        """Keep a record, and put a doubtful case off for another attempt."""
        tries = self._tries[record.case_id] = self._tries.get(record.case_id, 0) + 1
        reason = self._doubt(record)
        again = reason is not None and tries < _MOST_ATTEMPTS
        if reason is not None:
            words = f"{record.message}; {reason}" + (", so it is tried again" if again else "")
            record = record.model_copy(update={"message": words})
        record = self._write(record)
        self._pending = [case for case in self._pending if case.id != record.case_id]
        if again:
            self._put_off(record.case, last=tries > 1)
        return self._standing(record.case, record)

    def _doubt(self, record: Record) -> str | None:
        """Return why a time limit that was met is no evidence; None where it is, or where there is
        no time left.
        """
        left_s = self._time_left_s()
        if left_s is not None and left_s < self._limits.case_timeout_s:
            return None
        return doubt(record, self._forecast().of(record.case))

    def _put_off(self, case: Case, *, last: bool) -> None:
        """Line a case and its longer lengths up again: behind its length, or at the end."""
        waiting = [case, *self._longer(case)]
        others = [one for one in self._pending if one not in waiting]
        longer = [number for number, one in enumerate(others) if one.length > case.length]
        place = len(others) if last or not longer else longer[0]
        self._pending = [*others[:place], *waiting, *others[place:]]

    def _longer(self, case: Case) -> list[Case]:
        return [
            one for one in self._pending if one.series == case.series and one.length > case.length
        ]

    def _write(self, record: Record) -> Record:
        """Put a record on disk and among the others, with what the session knows of its case."""
        predicted = self._predictions.get(record.case_id)
        changes: dict[str, object] = {
            "time_limit_s": self._limits.case_timeout_s,
            "attempt": self._attempts.get(record.case_id, 0) + 1,
        }
        if predicted is not None:
            changes["memory"] = predicted.added_to(record.memory)
        record = record.model_copy(update=changes)
        self._attempts[record.case_id] = record.attempt
        self._writer.append(record)
        self.records = latest_of_each([*self.records, record])
        return record

    def _evidence(self) -> list[Record]:
        """Return the records that stand: those of cases that are tried again don't."""
        again = {case.id for case in self._pending}
        return [record for record in self.records if record.case_id not in again]

    def _peak_over_budget(self, case: Case) -> int | None:
        """Return the predicted peak of a case that is not going to fit."""
        predicted, budget = self._predictions.get(case.id), self._budget_bytes
        peak = None if predicted is None else predicted.peak_bytes
        return peak if peak is not None and budget is not None and peak > budget else None

    @property
    def _budget_bytes(self) -> int | None:
        """What a case may take: the budget, or else all that the device has."""
        if self._info.memory_budget_bytes is not None:
            return self._info.memory_budget_bytes
        return self._info.environment.device_memory_bytes

    def _forecast(self) -> Forecast:
        return Forecast(self.records, self._predictions, self._limits)

    def _time_left_s(self) -> float | None:
        total = self._limits.total_time_s
        return None if total is None else total - (time.monotonic() - self._began)

    def _standing(self, case: Case, *records: Record) -> Standing:
        peaks = [r.memory.peak_bytes for r in self.records if r.memory.peak_bytes is not None]
        left_s = self._forecast_s()
        return Standing(
            case=case,
            records=records,
            done=self._total - self._waiting - len(self._pending),
            total=self._total,
            elapsed_s=time.monotonic() - self._began,
            left_s=None if left_s is None else left_s + self._later_s,
            peak_bytes=max(peaks, default=None),
        )

    def _forecast_s(self) -> float | None:
        """Return the seconds that pending cases will take, those not worth starting left out."""
        if not self._pending:
            return 0.0
        if not self.records:
            return None
        forecast, evidence = self._forecast(), self._evidence()
        limit_s = self._limits.case_timeout_s
        total_s = 0.0
        for case in self._pending:
            if self._peak_over_budget(case) is not None or stopped_by(case, evidence) is not None:
                continue
            expected = forecast.of(case)
            if expected is None or hopeless(expected, forecast.roughly(case), limit_s):
                continue
            total_s += min(limit_s, expected.ms / 1e3)
        left_s = self._time_left_s()
        return total_s if left_s is None else max(0.0, min(left_s, total_s))
