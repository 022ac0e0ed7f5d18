"""The local executor runs each case in its own process of this machine, one after another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from reformer_bench.measure import host
from reformer_bench.run import entry
from reformer_bench.run.executor import Description, WorkOrder
from reformer_bench.run.forkserver import Ended, ForkServer
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Environment, Outcome, Overhead, Record, utc_now

Measure = Callable[[WorkOrder, float | None], Record]
Answer = TypeVar("Answer")
_DESCRIBE_TIMEOUT_S = 120.0
# Threads of OpenMP wait for each other by spinning. Where another process wants a processor, the
# one that is waited for doesn't get it: a reformer's step of 4K tokens took 27 s in place of 0.8 s
# beside one other process on two cores, and 1.6 s with threads that sleep. Sleeping costs an idle
# machine a quarter at 4K tokens and doubles a step of 512, so it is for busy ones only. Read when
# torch is loaded, so it takes a new server.
_SLEEPING = {"OMP_WAIT_POLICY": "passive"}
_WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_MEMORY_WORDS = ("bad_alloc", "Cannot allocate memory", "can't allocate memory")


class LocalExecutor:
    """Runs orders in workers of one fork server."""

    takes_all = False

    def __init__(self, measure: Measure = entry.measure) -> None:
        """``measure`` is what a worker runs; it must be importable by name."""
        self._measure = measure
        self.server = ForkServer(entry.PRELOAD)
        self._speeds: dict[tuple[str, str, bool], float | None] = {}
        self._disturbed = False
        """Whether the machine was busy with something else when last looked at."""
        self._sleeping = False
        """Whether the threads of the server's workers sleep while they wait for each other."""

    def describe(self, device: str) -> Description:
        """Say what a device is here; InputError where there is none of that name."""
        found = self._ask(entry.describe, device)
        if isinstance(found, InputError):
            raise found
        return found

    def look(self, environment: Environment) -> str | None:
        """Say who keeps the machine busy so that times are not to be trusted; else None."""
        glance = host.look()
        self._disturbed = glance is not None and glance.load.disturbs(environment)
        if glance is None or not self._disturbed:
            return None
        return glance.words(environment.cpu_count)

    def run(self, orders: Sequence[WorkOrder]) -> Iterator[Record]:
        """Yield a record for every order, one after another."""
        yield from map(self._run, orders)

    def close(self) -> None:
        """End the server and its worker."""
        self.server.close()

    def _run(self, order: WorkOrder) -> Record:
        self._choose_waiting()
        speed = self._speed(order)
        library = entry.library_model(order.case)
        if library is not None:
            # Once a server, so that no case pays seconds for it.
            self.server.warm(entry.import_library, library)
        started_at, kills_before = utc_now(), host.oom_kills()
        before, own = host.read(), time.process_time()
        began = time.monotonic()
        ended = self.server.call(self._measure, order, speed, timeout_s=order.timeout_s)
        wall_ms = (time.monotonic() - began) * 1e3
        own_s = (ended.cpu_s or 0.0) + time.process_time() - own
        load = host.load_between(before, host.read(), own_s)
        if ended.returned:
            overhead = Overhead(start_ms=ended.start_ms or 0.0, stop_ms=ended.stop_ms or 0.0)
            record: Record = ended.value
            record = record.model_copy(update={"wall_ms": wall_ms, "overhead": overhead})
        else:
            environment = order.environment or self.describe(order.case.device).environment
            outcome, message = _failure(ended, order, _grew(kills_before, host.oom_kills()))
            record = Record.not_measured(
                order.case, outcome, message, environment, started_at=started_at, wall_ms=wall_ms
            )
        self._disturbed = load is not None and load.disturbs(record.environment)
        # What else decided its times.
        settings = dict(record.settings)
        if record.environment.device_kind == "cpu":
            settings["openmp_waiting"] = self._waiting_words()
        return record.model_copy(update={"load": load, "settings": settings})

    def _choose_waiting(self) -> None:
        """Take a server whose threads sleep while they wait where the machine is busy, else one
        whose threads spin. What the user's environment says of it stays as it is.
        """
        if self._sleeping == self._disturbed or any(map(os.environ.get, _WAITING_VARIABLES)):
            return
        self.server.close()
        self.server = ForkServer(entry.PRELOAD, _SLEEPING if self._disturbed else None)
        self._sleeping = self._disturbed

    def _waiting_words(self) -> str:
        given = {name: os.environ[name] for name in _WAITING_VARIABLES if os.environ.get(name)}
        if self._sleeping:
            given = _SLEEPING
        return " ".join(f"{name}={value}" for name, value in given.items()) or "default"

    def _speed(self, order: WorkOrder) -> float | None:
        """Return the device's matrix-product speed in a case's dtype, measured once a run, and once
        more after the machine turned busy or was left alone again.
        """
        device, dtype = order.case.device, order.case.model.dtype
        key = (device, dtype, self._disturbed)
        if key not in self._speeds and self._measure is entry.measure:
            self._speeds[key] = self._ask(entry.matmul_speed, device, dtype)
        return self._speeds.get(key)

    def _ask(self, function: Callable[..., Answer], *args: object) -> Answer:
        ended = self.server.call(function, *args, timeout_s=_DESCRIBE_TIMEOUT_S)
        if not ended.returned:
            raise RuntimeError(f"{function.__name__}{args} failed: {_words(ended)}")
        answer: Answer = ended.value
        return answer


def _grew(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def _failure(ended: Ended, order: WorkOrder, oom_killed: bool) -> tuple[Outcome, str]:
    """Say how a worker that returned no record ended, as an outcome with its reason in one line."""
    if ended.timed_out:
        return Outcome.TIMEOUT, f"killed after {order.timeout_s:.0f} s: {order.timeout_reason}"
    if ended.signal is signal.SIGKILL and oom_killed:
        return Outcome.HOST_OOM, "killed by the kernel, which was out of memory"
    if any(words in ended.last_words for words in _MEMORY_WORDS):
        return Outcome.HOST_OOM, _words(ended)
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
