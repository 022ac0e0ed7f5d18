"""The local executor: however a worker ends, there is one record that says how."""

from collections.abc import Iterator

import pytest

from reformer_bench.measure import host as cgroup
from reformer_bench.measure import host as machine_load
from reformer_bench.run.executors import local
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.run.forkserver import ForkServer
from reformer_bench.schema.record import Load, Outcome, Record
from tests.builders import case, environment, order
from tests.run import tasks


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


def reading(seconds: float, busy_s: float) -> machine_load.Reading:
    return machine_load.Reading(seconds, busy_s, 0.0)


def play_load(monkeypatch, *others: float) -> None:
    """Cases of ten seconds, in each of which others take so many cores."""
    readings = [r for cores in others for r in (reading(0.0, 0.0), reading(10.0, 10 * cores))]
    readings_ = iter(readings)
    monkeypatch.setattr(machine_load, "read", lambda: next(readings_))


def test_a_record_says_whom_the_processors_served(executor, monkeypatch):
    play_load(monkeypatch, 1.0)
    record = run(executor, 1)
    assert record.load.other_cores == pytest.approx(1.0, abs=0.1)
    assert record.was_disturbed
    executor._disturbed = False


@pytest.fixture
def own_executor(monkeypatch) -> Iterator[LocalExecutor]:
    for name in local._WAITING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(local.entry, "PRELOAD", ("tests.run.tasks",))
    made = LocalExecutor(tasks.waiting)
    yield made
    made.close()


def test_threads_sleep_while_they_wait_on_a_busy_machine_only(own_executor, monkeypatch):
    play_load(monkeypatch, 1.0, 1.0, 0.0, 0.0)
    records = [run(own_executor, n) for n in (8, 9, 10, 11)]
    assert [r.message for r in records] == ["", "passive", "passive", ""]
    assert [r.settings["openmp_waiting"] for r in records] == [
        "default",
        "OMP_WAIT_POLICY=passive",
        "OMP_WAIT_POLICY=passive",
        "default",
    ]


def test_what_the_user_says_of_waiting_stays(own_executor, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    play_load(monkeypatch, 1.0, 1.0)
    records = [run(own_executor, n) for n in (8, 9)]
    assert [r.message for r in records] == ["", ""]
    assert records[1].settings["openmp_waiting"] == "GOMP_SPINCOUNT=7"


def test_a_look_says_who_disturbs(own_executor, monkeypatch):
    busy = machine_load.Glance(Load(own_cores=0.0, other_cores=1.0), (("python", 42, 1.0),))
    monkeypatch.setattr(machine_load, "look", lambda: busy)
    here = environment()
    assert own_executor.look(here) == "another process (python, 42) takes 1.0 of 2 cores"
    assert own_executor.look(here.model_copy(update={"torch_threads": 1})) is None
