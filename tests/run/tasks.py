"""What workers do in the tests of processes; importable by name, and without torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from reformer_bench.run.executor import WorkOrder
from reformer_bench.run.forkserver import tell
from reformer_bench.schema.record import Record
from tests.builders import record_of


def double(x: int) -> int:
    return 2 * x


def process_id() -> int:
    return os.getpid()


def large(n_bytes: int) -> bytes:
    return b"x" * n_bytes


def fail() -> None:
    raise ValueError("expected this,\nnot that")


def count(n: int) -> int:
    for number in range(n):
        tell(number)
    return n


def compute(cpu_s: float) -> None:
    while time.process_time() < cpu_s:
        pass


def die(number: int) -> None:
    print("last words")
    sys.stdout.flush()
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


def sleep(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


def interrupt_caller(marker: str, caller: int) -> None:
    Path(marker).write_text(str(os.getpid()))
    os.kill(caller, signal.SIGINT)
    time.sleep(600)


def fail_job(order: WorkOrder) -> None:
    raise ValueError("no")


def measured(order: WorkOrder, matmul_flops_per_second: float | None) -> Record:
    """By the case's length: a record, or one of the ways to give none."""
    match order.case.length:
        case 2:
            time.sleep(600)
        case 3:
            os.kill(os.getpid(), signal.SIGKILL)
        case 4:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 5:
            os._exit(7)
        case 6:
            raise ValueError("no")
        case 7:
            print("terminate called after throwing an instance of 'std::bad_alloc'")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGABRT)
    return record_of(order.case)


def waiting(order: WorkOrder, matmul_flops_per_second: float | None) -> Record:
    """A record whose message is what the environment says of waiting."""
    return record_of(order.case, message=os.environ.get("OMP_WAIT_POLICY", ""))
