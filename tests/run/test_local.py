"""The local executor: however a worker ends, there is one record that says how."""

from collections.abc import Iterator

import pytest

from reformer_bench.run import cgroup
from reformer_bench.run.executors import local
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.run.forkserver import ForkServer
from reformer_bench.spec.record import Outcome, Record
from tests.run import tasks
from tests.run.builders import case, order


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(tasks.measured)
    made.server = ForkServer(["tests.run.tasks"])
    yield made
    made.close()


def run(executor: LocalExecutor, length: int, timeout_s: float = 60.0) -> Record:
    (record,) = executor.run([order(case(length=length), timeout_s=timeout_s)])
    assert record.case.length == length
    assert record.case_id == record.case.id
    return record


def test_a_record_gets_the_wall_time_and_the_overhead(executor):
    record = run(executor, 1)
    assert record.outcome is Outcome.OK
    assert record.overhead is not None
    assert record.wall_ms >= record.overhead.start_ms > 0
    assert record.overhead.stop_ms > 0


def test_a_case_out_of_time_is_killed(executor):
    record = run(executor, 2, timeout_s=0.3)
    assert record.outcome is Outcome.TIMEOUT
    assert record.message == "killed after 0 s: the time limit of a case"


@pytest.mark.parametrize(
    ("length", "outcome", "message"),
    [
        (3, Outcome.KILLED, "killed by SIGKILL"),
        (4, Outcome.KILLED, "killed by SIGSEGV"),
        (5, Outcome.ERROR, "ended with exit code 7 and no result"),
        (6, Outcome.ERROR, "ValueError: no"),
        (7, Outcome.HOST_OOM, "std::bad_alloc"),
    ],
    ids=["sigkill", "sigsegv", "exit-7", "exception", "bad-alloc"],
)
def test_every_other_end_is_an_outcome_with_a_reason(executor, length, outcome, message):
    record = run(executor, length)
    assert record.outcome is outcome
    assert record.message is not None
    assert message in record.message
    assert run(executor, 1).outcome is Outcome.OK, "the next case is not touched by it"


def test_a_kill_is_host_oom_only_when_the_kernel_counted_one(executor, monkeypatch):
    counts = iter([4, 5])
    monkeypatch.setattr(cgroup, "oom_kills", lambda: next(counts))
    record = run(executor, 3)
    assert record.outcome is Outcome.HOST_OOM
    assert record.message == "killed by the kernel, which was out of memory"


def test_orders_are_taken_one_at_a_time(executor):
    taken = []

    def orders():
        for length in (8, 9):
            taken.append(length)
            yield order(case(length=length))

    records = executor.run(orders())
    next(records)
    assert taken == [8]


def test_growth_needs_both_counts():
    assert not local._grew(None, 5)
    assert not local._grew(5, None)
    assert not local._grew(5, 5)
    assert local._grew(4, 5)
