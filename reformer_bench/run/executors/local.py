"""The local executor runs each case in its own process of this machine, one after another."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from reformer_bench.run import cgroup, entry
from reformer_bench.run.forkserver import Ended, ForkServer
from reformer_bench.run.order import Description, WorkOrder
from reformer_bench.spec.errors import InputError
from reformer_bench.spec.record import Outcome, Overhead, Record

Measure = Callable[[WorkOrder, float | None], Record]
_DESCRIBE_TIMEOUT_S = 120.0
_MEMORY_WORDS = ("bad_alloc", "Cannot allocate memory", "can't allocate memory")


class LocalExecutor:
    """Runs orders in workers of one fork server."""

    def __init__(self, measure: Measure = entry.measure) -> None:
        """``measure`` is what a worker runs; it must be importable by name."""
        self._measure = measure
        self.server = ForkServer(entry.PRELOAD)
        self._speeds: dict[tuple[str, str], float | None] = {}

    def describe(self, device: str) -> Description:
        """Say what a device is here; InputError where there is none of that name."""
        found = self._ask(entry.describe, device)
        if isinstance(found, InputError):
            raise found
        assert isinstance(found, Description)
        return found

    def run(self, orders: Iterable[WorkOrder]) -> Iterator[Record]:
        """Yield a record for every order; the next order is asked for when its turn has come."""
        for order in orders:
            yield self._run(order)

    def close(self) -> None:
        """End the server and its worker."""
        self.server.close()

    def _run(self, order: WorkOrder) -> Record:
        speed = self._speed(order)
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        kills_before = cgroup.oom_kills()
        began = time.monotonic()
        ended = self.server.call(self._measure, order, speed, timeout_s=order.timeout_s)
        wall_ms = (time.monotonic() - began) * 1e3
        if ended.returned:
            overhead = Overhead(start_ms=ended.start_ms or 0.0, stop_ms=ended.stop_ms or 0.0)
            record: Record = ended.value
            return record.model_copy(update={"wall_ms": wall_ms, "overhead": overhead})
        environment = order.environment or self.describe(order.case.device).environment
        outcome, message = _failure(ended, order, _grew(kills_before, cgroup.oom_kills()))
        return Record(
            case_id=order.case.id,
            case=order.case,
            outcome=outcome,
            message=message,
            started_at=started_at,
            wall_ms=wall_ms,
            environment=environment,
        )

    def _speed(self, order: WorkOrder) -> float | None:
        """Return the device's matrix-product speed in a case's dtype, measured once a run."""
        key = (order.case.device, order.case.model.dtype)
        if key not in self._speeds and self._measure is entry.measure:
            speed = self._ask(entry.matmul_speed, *key)
            self._speeds[key] = speed if isinstance(speed, float) else None
        return self._speeds.get(key)

    def _ask(self, function: Callable[..., object], *args: object) -> object:
        ended = self.server.call(function, *args, timeout_s=_DESCRIBE_TIMEOUT_S)
        if not ended.returned:
            raise RuntimeError(f"{function.__name__}{args} failed: {_words(ended)}")
        return ended.value


def _grew(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def _failure(ended: Ended, order: WorkOrder, oom_killed: bool) -> tuple[Outcome, str]:
    """Say how a worker that returned no record ended, as an outcome with its reason in one line."""
    if ended.timed_out:
        return Outcome.TIMEOUT, f"killed after {order.timeout_s:.0f} s: {order.timeout_reason}"
    if ended.signal is signal.SIGKILL and oom_killed:
        return Outcome.HOST_OOM, "killed by the kernel, which was out of memory"
    if any(words in ended.last_words for words in _MEMORY_WORDS):
        return Outcome.HOST_OOM, f"{_words(ended)}"
    if ended.signal is not None:
        return Outcome.KILLED, _words(ended)
    return Outcome.ERROR, _words(ended)


def _words(ended: Ended) -> str:
    """Say how a worker ended, with its last words where it has not said why itself."""
    if ended.error is not None:
        return ended.error
    if ended.timed_out:
        return "stopped at its time limit"
    if ended.signal is not None:
        text = f"killed by {ended.signal.name}"
    else:
        text = f"ended with exit code {ended.exit_code} and no result"
    return f"{text}: {ended.last_words}" if ended.last_words else text
