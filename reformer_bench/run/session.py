"""A session decides case by case what is started, and writes each record as its case ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reformer_bench.run import forecast, skip
from reformer_bench.run.executor import Executor
from reformer_bench.run.order import WorkOrder
from reformer_bench.run.predictions import Predictions, over_budget_message
from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Environment, Outcome, Record
from reformer_bench.spec.suite import DeviceTable
from reformer_bench.store import RunWriter


@dataclass(frozen=True)
class Progress:
    """Where a session stands; it is sent when a case starts and when it has ended."""

    case: Case
    record: Record | None
    """None where the case has just been started."""
    done: int
    """How many cases have a record, those of an earlier run of the folder included."""
    total: int
    elapsed_s: float
    left_s: float | None
    """How long the rest will take by a forecast; None while nothing is known."""
    peak_bytes: int | None
    """The highest allocator peak of any case so far."""


Notify = Callable[[Progress], None]


class Session:
    """One pass over the cases of a run that have no record yet."""

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
        """Every record of the run, in the order written."""
        known = {record.case_id for record in earlier}
        self._total = len({case.id for case in cases} | known)
        self._pending = [case for case in cases if case.id not in known]
        self._began = time.monotonic()

    def run(self) -> list[Record]:
        """Measure what is pending; every record is on disk when this returns or raises."""
        self._began = time.monotonic() - self._spent_s
        for record in self._executor.run(self._orders()):
            self._finish(record)
        return self.records

    def _orders(self) -> Iterator[WorkOrder]:
        """Yield orders for the cases worth starting; the others get their record here."""
        while self._pending:
            case = self._pending[0]
            order = self._order(case)
            refusal = self._refusal(case, order)
            if refusal is not None:
                self._finish(self._unstarted(case, *refusal))
                continue
            self._pending.pop(0)
            self._tell(case, None)
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

    def _refusal(self, case: Case, order: WorkOrder) -> tuple[Outcome, str] | None:
        """Say why a case isn't to be started; None when it is."""
        peak, budget = self._predicted_peak(case), self._budget_bytes
        if peak is not None and budget is not None and peak > budget:
            return Outcome.OVER_BUDGET, over_budget_message(peak, budget)
        stop = skip.stopped_by(case, self.records)
        if stop is not None:
            return Outcome.SKIPPED, skip.skip_message(stop)
        message = skip.no_time_message(
            forecast.case_ms(self._history(case), order),
            self._limits.case_timeout_s,
            self._time_left_s(),
            self._limits.total_time_s,
        )
        return None if message is None else (Outcome.TIMEOUT, message)

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

    def _predicted_peak(self, case: Case) -> int | None:
        predicted = self._predictions.get(case.id)
        return None if predicted is None else predicted.peak_bytes

    @property
    def _budget_bytes(self) -> int | None:
        """Return what a case may take: the budget, or else all that the device has."""
        if self._memory_budget_bytes is not None:
            return self._memory_budget_bytes
        return self._environment.device_memory_bytes

    def _finish(self, record: Record) -> None:
        predicted = self._predictions.get(record.case_id)
        if predicted is not None:
            memory = predicted.added_to(record.memory)
            record = record.model_copy(update={"memory": memory})
        self._writer.append(record)
        self.records.append(record)
        self._pending = [case for case in self._pending if case.id != record.case_id]
        self._tell(record.case, record)

    def _tell(self, case: Case, record: Record | None) -> None:
        peaks = [r.memory.peak_bytes for r in self.records if r.memory.peak_bytes is not None]
        self._notify(
            Progress(
                case=case,
                record=record,
                done=len(self.records),
                total=self._total,
                elapsed_s=time.monotonic() - self._began,
                left_s=self._forecast_s(),
                peak_bytes=max(peaks, default=None),
            )
        )

    def _history(self, case: Case) -> list[Record]:
        return [record for record in self.records if record.case.series == case.series]

    def _time_left_s(self) -> float | None:
        total = self._limits.total_time_s
        return None if total is None else total - (time.monotonic() - self._began)

    def _forecast_s(self) -> float | None:
        """Return how many seconds the pending cases will take, those not worth starting
        left out.
        """
        times: list[float] = []
        for case in self._pending:
            if skip.stopped_by(case, self.records) is not None:
                continue
            predicted = forecast.case_ms(self._history(case), self._order(case))
            if predicted is not None and predicted / 1e3 <= self._limits.case_timeout_s:
                times.append(predicted / 1e3)
        if not times and not self.records:
            return None
        left_s = self._time_left_s()
        return sum(times) if left_s is None else max(0.0, min(left_s, sum(times)))
