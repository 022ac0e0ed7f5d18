"""A session decides case by case what is started, and writes each record as its case ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reformer_bench.run import decide as skip
from reformer_bench.run.decide import Forecast, doubt, hopeless
from reformer_bench.run.executor import Executor, WorkOrder
from reformer_bench.run.expand import expand, expand_parts
from reformer_bench.run.predict import over_budget_message
from reformer_bench.schema.case import Case, device_kind
from reformer_bench.schema.record import Environment, Outcome, Predictions, Record, latest_of_each
from reformer_bench.schema.suite import DeviceTable, Suite
from reformer_bench.store import RunInfo, RunWriter

# Once when the other models of its length are done, and once more at the end of the run.
_MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Progress:
    """Where a session stands; it is sent when a case starts and when it has ended."""

    case: Case
    records: tuple[Record, ...]
    """What has just been written, several where cases were not started; none: the case has just
    been started."""
    done: int
    """Cases that need no more attempt, those of an earlier run of the folder included."""
    total: int
    elapsed_s: float
    left_s: float | None
    """A forecast, with what has just been started; None while nothing is known."""
    peak_bytes: int | None
    """The highest allocator peak of any case so far."""


Notify = Callable[[Progress], None]


class Session:
    """One pass over the cases of a run that have no record yet.

    A case that meets its time limit where that is doubtful is tried again, after the other models
    of its length and, the last time, at the end; its longer lengths wait for that.
    """

    def __init__(
        self,
        executor: Executor,
        writer: RunWriter,
        cases: Sequence[Case],
        limits: DeviceTable,
        environment: Environment,
        *,
        memory_budget_bytes: int | None = None,
        predictions: Predictions | None = None,
        spent_s: float = 0.0,
        earlier: Sequence[Record] = (),
        reopened: Sequence[Record] = (),
        notify: Notify = lambda progress: None,
    ) -> None:
        self._executor = executor
        self._writer = writer
        self._limits = limits
        self._environment = environment
        self._memory_budget_bytes = memory_budget_bytes
        self._predictions = predictions or {}
        self._spent_s = spent_s
        """Of the run's time, before anything was measured."""
        self._notify = notify
        self.records = list(earlier)
        """The latest record of every case of the run, in the order of their first attempts."""
        known = {record.case_id for record in earlier}
        self._total = len({case.id for case in cases} | known)
        self._pending = [case for case in cases if case.id not in known]
        self._attempts = {record.case_id: record.attempt for record in reopened}
        self._tries: dict[str, int] = {}
        """Of this session, by case id."""
        self._began = time.monotonic()

    def run(self) -> list[Record]:
        """Measure what is pending; every record is on disk when this returns or raises."""
        self._began = time.monotonic() - self._spent_s
        # More than once only where the executor takes all orders before the first record.
        while self._pending:
            for record in self._executor.run(self._orders()):
                self._finish(record)
        return self.records

    def _orders(self) -> Iterator[WorkOrder]:
        """Yield orders for the cases worth starting; the others get their record here."""
        while self._pending:
            case = self._pending[0]
            order = self._order(case)
            refusal = self._refusal(case)
            if refusal is not None:
                self._refuse(case, *refusal)
                continue
            self._tell(case, ())
            self._pending.pop(0)
            yield order

    def _order(self, case: Case) -> WorkOrder:
        timeout_s, reason = self._limits.case_timeout_s, "the time limit of a case"
        left_s = self._time_left_s()
        if left_s is not None and left_s < timeout_s:
            timeout_s, reason = left_s, f"the run's {self._limits.total_time_s:.0f} s were used up"
        return WorkOrder(
            case=case,
            environment=self._environment,
            timeout_s=timeout_s,
            timeout_reason=reason,
            min_samples=self._limits.min_samples,
            max_samples=self._limits.max_samples,
            sample_time_s=self._limits.sample_time_s,
            memory_budget_bytes=self._memory_budget_bytes,
        )

    def _refusal(self, case: Case) -> tuple[Outcome, str] | None:
        """Why a case is not to be started; None when it is."""
        peak, budget = self._predicted_peak(case), self._budget_bytes
        if peak is not None and budget is not None and peak > budget:
            return Outcome.OVER_BUDGET, over_budget_message(peak, budget)
        left_s, total_s = self._time_left_s(), self._limits.total_time_s
        if left_s is not None and left_s <= 0:
            return Outcome.TIMEOUT, skip.used_up_message(total_s)
        stop = skip.stopped_by(case, self._evidence())
        if stop is not None:
            return Outcome.SKIPPED, skip.skip_message(stop)
        forecast = self._forecast()
        expected, limit_s = forecast.of(case), self._limits.case_timeout_s
        if case.id in self._tries and left_s is not None and left_s < limit_s:
            # Another attempt that is cut short earlier than the last would tell nothing.
            return Outcome.TIMEOUT, skip.used_up_message(total_s)
        if expected is None or not expected.is_own:
            return None
        if hopeless(expected, forecast.roughly(case), limit_s):
            return Outcome.TIMEOUT, skip.too_slow_message(expected.ms, limit_s)
        if left_s is not None and expected.ms / 1e3 > left_s:
            return Outcome.TIMEOUT, skip.too_late_message(expected.ms, left_s, total_s)
        return None

    def _refuse(self, case: Case, outcome: Outcome, message: str) -> None:
        """Records for a case that is not started, and for the longer ones that follow from it."""
        written = self._write_unstarted(case, outcome, message)
        for longer in self._longer(case):
            refusal = self._refusal(longer)
            if refusal is None:
                break
            written += self._write_unstarted(longer, *refusal)
        if written:
            self._tell(case, tuple(written))

    def _write_unstarted(self, case: Case, outcome: Outcome, message: str) -> list[Record]:
        self._pending.remove(case)
        if case.id in self._tries:
            # What its last attempt came to says more.
            return []
        return [self._write(self._unstarted(case, outcome, message))]

    def _unstarted(self, case: Case, outcome: Outcome, message: str) -> Record:
        return Record(
            case_id=case.id,
            case=case,
            outcome=outcome,
            message=message,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_ms=0.0,
            environment=self._environment,
        )

    def _finish(self, record: Record) -> None:
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
        self._tell(record.case, (record,))

    def _doubt(self, record: Record) -> str | None:
        """Why a time limit that was met is no evidence; None: it is, or there is no time left."""
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
        """The records that stand: those of cases that are tried again don't."""
        again = {case.id for case in self._pending}
        return [record for record in self.records if record.case_id not in again]

    def _predicted_peak(self, case: Case) -> int | None:
        predicted = self._predictions.get(case.id)
        return None if predicted is None else predicted.peak_bytes

    @property
    def _budget_bytes(self) -> int | None:
        """Return what a case may take: the budget, or else all that the device has."""
        if self._memory_budget_bytes is not None:
            return self._memory_budget_bytes
        return self._environment.device_memory_bytes

    def _tell(self, case: Case, records: tuple[Record, ...]) -> None:
        peaks = [r.memory.peak_bytes for r in self.records if r.memory.peak_bytes is not None]
        self._notify(
            Progress(
                case=case,
                records=records,
                done=self._total - len(self._pending),
                total=self._total,
                elapsed_s=time.monotonic() - self._began,
                left_s=self._forecast_s(),
                peak_bytes=max(peaks, default=None),
            )
        )

    def _forecast(self) -> Forecast:
        return Forecast(self.records, self._predictions, self._limits)

    def _time_left_s(self) -> float | None:
        total = self._limits.total_time_s
        return None if total is None else total - (time.monotonic() - self._began)

    def _forecast_s(self) -> float | None:
        """Seconds the pending cases will take, those not worth starting left out."""
        if not self._pending:
            return 0.0
        if not self.records:
            return None
        forecast, evidence, budget = self._forecast(), self._evidence(), self._budget_bytes
        limit_s = self._limits.case_timeout_s
        total_s = 0.0
        for case in self._pending:
            peak = self._predicted_peak(case)
            over = peak is not None and budget is not None and peak > budget
            if over or skip.stopped_by(case, evidence) is not None:
                continue
            expected = forecast.of(case)
            if expected is None or hopeless(expected, forecast.roughly(case), limit_s):
                continue
            total_s += min(limit_s, expected.ms / 1e3)
        left_s = self._time_left_s()
        return total_s if left_s is None else max(0.0, min(left_s, total_s))


def measure_parts(
    parts: Sequence[Suite],
    executor: Executor,
    writer: RunWriter,
    info: RunInfo,
    *,
    records: list[Record],
    reopened: Sequence[Record] = (),
    predictions: Predictions,
    spent_s: float,
    notify: Notify,
) -> None:
    """Measure every part; each record is added to ``records`` the moment it is written.

    ``records`` holds those of an earlier run of the folder already, but not those that are
    ``reopened``, whose cases are run again. ``spent_s`` was taken before anything was measured, and
    counts against the limits of a run of a single suite; where there are several, no one of them is
    charged with what was done for all.
    """
    kind = device_kind(info.device)
    known = {record.case_id for record in records}
    total = len(known | {case.id for case in expand_parts(parts, info.device)})

    for number, part in enumerate(parts):
        after_s = sum(_expected_s(later, info.device) for later in parts[number + 1 :])

        def tell(progress: Progress, after_s: float = after_s) -> None:
            records[:] = latest_of_each([*records, *progress.records])
            left_s = None if progress.left_s is None else progress.left_s + after_s
            notify(replace(progress, total=total, left_s=left_s))

        session = Session(
            executor,
            writer,
            expand(part, info.device),
            part.on(kind),
            info.environment,
            memory_budget_bytes=info.memory_budget_bytes,
            predictions=predictions,
            spent_s=spent_s if len(parts) == 1 else 0.0,
            earlier=tuple(records),
            reopened=reopened,
            notify=tell,
        )
        session.run()


def _expected_s(part: Suite, device: str) -> float:
    """Return how long a suite says it takes on a kind of device; 0 where it doesn't say."""
    return 60 * part.expected_minutes.get(device_kind(device), 0.0)
