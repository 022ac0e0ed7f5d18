"""The session: what is started, in which order, and what is on disk when a case has ended."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reformer_bench.run.executor import Description, WorkOrder
from reformer_bench.run.expand import make_plan
from reformer_bench.run.session import Session, Standing
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Load, Outcome, Record
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.store import RunWriter, load_run
from tests.builders import case, plan, prediction, record_of, run_info, suite


class Played:
    """An executor that makes up records and keeps the orders it got."""

    takes_all = False

    def __init__(self, play: Callable[[Case], Record]) -> None:
        self.play = play
        self.played: list[Record] = []
        self.orders: list[WorkOrder] = []

    def describe(self, device: str) -> Description:
        raise NotImplementedError

    def run(self, orders: Sequence[WorkOrder]) -> Iterator[Record]:
        for order in orders:
            self.orders.append(order)
            self.played.append(self.play(order.case))
            yield self.played[-1]

    def close(self) -> None:
        pass

    @property
    def started(self) -> list[tuple[str, int]]:
        return [(order.case.variant, order.case.length) for order in self.orders]


@pytest.fixture
def writer(tmp_path) -> Iterator[RunWriter]:
    with RunWriter(tmp_path, run_info()) as made:
        yield made


def session(executor: Played, writer: RunWriter, cases: list[Case], **options: Any) -> Session:
    limits = options.pop("limits", DeviceTable(case_timeout_s=60, total_time_s=300))
    asked = run_info(memory_budget_bytes=options.pop("memory_budget_bytes", None))
    return Session(plan(cases, limits), executor, writer, asked, **options)


def told_of(made: Session) -> list[Standing]:
    """Run a session to its end."""
    return list(made.run())


def records_of(made: Session) -> list[Record]:
    """Run a session to its end."""
    told_of(made)
    return made.records


def cases(*lengths: int) -> list[Case]:
    return [case(v, length=n) for n in lengths for v in ("reformer", "transformer")]


def test_every_case_gets_a_record_on_disk_as_it_ends(writer):
    on_disk = []

    def play(of: Case) -> Record:
        on_disk.append(len(load_run(writer.folder).records))
        return record_of(of)

    executor = Played(play)
    records = records_of(session(executor, writer, cases(32, 64)))
    assert on_disk == [0, 1, 2, 3]
    assert load_run(writer.folder).records == records
    assert [r.case for r in records] == cases(32, 64)


@pytest.mark.parametrize("outcome", [Outcome.HOST_OOM, Outcome.DEVICE_OOM, Outcome.TIMEOUT])
def test_a_variant_that_ran_out_is_not_tried_at_longer_lengths(writer, outcome):
    def play(of: Case) -> Record:
        out = of.variant == "transformer" and of.length >= 64
        return record_of(of, outcome if out else Outcome.OK)

    executor = Played(play)
    records = records_of(session(executor, writer, cases(32, 64, 128, 256)))
    assert ("transformer", 64) in executor.started
    assert {n for v, n in executor.started if v == "transformer"} == {32, 64}
    assert {n for v, n in executor.started if v == "reformer"} == {32, 64, 128, 256}
    skipped = [r for r in records if r.outcome is Outcome.SKIPPED]
    stop = next(r for r in records if r.outcome is outcome)
    assert [r.case.length for r in skipped] == [128, 256]
    assert all(stop.case_id in (r.message or "") for r in skipped)


def test_an_error_does_not_stop_a_series(writer):
    executor = Played(lambda of: record_of(of, Outcome.ERROR, message="no"))
    records_of(session(executor, writer, cases(32, 64)))
    assert len(executor.started) == 4


def test_a_case_predicted_beyond_its_timeout_is_not_started(writer):
    executor = Played(lambda of: record_of(of, step_ms=of.length * 100.0))
    records = records_of(session(executor, writer, cases(32, 64, 512)))
    assert {n for _, n in executor.started} == {32, 64}
    for one in (r for r in records if r.case.length == 512):
        assert one.outcome is Outcome.TIMEOUT
        assert one.message is not None
        assert one.message.startswith("not started: predicted to take")
        assert "more than the time limit of a case of 60 s" in one.message


def test_nothing_is_started_once_the_runs_time_is_used_up(writer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("reformer_bench.run.session.time.monotonic", lambda: now[0])

    def play(of: Case) -> Record:
        now[0] += 40.0
        return record_of(of)

    executor = Played(play)
    limits = DeviceTable(case_timeout_s=60, total_time_s=100)
    records = records_of(session(executor, writer, cases(32, 64), limits=limits))
    assert len(executor.orders) == 3
    assert [order.timeout_s for order in executor.orders] == [60, 60, 20]
    assert executor.orders[-1].timeout_reason == "the run's 100 s were used up"
    assert records[-1].message == "not started: the run's 100 s are used up"


def test_cases_with_a_record_are_not_repeated_and_their_outcomes_count(writer):
    earlier = [
        record_of(case("reformer", length=32)),
        record_of(case("transformer", length=32), Outcome.HOST_OOM),
    ]
    executor = Played(record_of)
    records = records_of(session(executor, writer, cases(32, 64), earlier=earlier))
    assert executor.started == [("reformer", 64)]
    assert records[:2] == earlier
    assert [r.outcome for r in records if r.case.length == 64] == [Outcome.OK, Outcome.SKIPPED]


def test_what_has_ended_is_kept_when_the_run_is_interrupted(writer):
    def play(of: Case) -> Record:
        if of.length == 64:
            raise KeyboardInterrupt
        return record_of(of)

    with pytest.raises(KeyboardInterrupt):
        records_of(session(Played(play), writer, cases(32, 64)))
    assert [r.case for r in load_run(writer.folder).records] == cases(32)


def test_progress_counts_and_forecasts(writer):
    executor = Played(lambda of: record_of(of, step_ms=float(of.length)))
    told = told_of(session(executor, writer, cases(32, 64)))
    assert [(p.done, p.records == ()) for p in told] == [
        (0, True),
        (1, False),
        (1, True),
        (2, False),
        (2, True),
        (3, False),
        (3, True),
        (4, False),
    ]
    assert all(p.total == 4 for p in told)
    assert told[0].left_s is None
    assert told[3].left_s is not None
    assert told[3].left_s > 0
    assert told[-1].left_s == 0


def test_orders_carry_limits_and_budget(writer):
    executor = Played(record_of)
    limits = DeviceTable(case_timeout_s=9, min_samples=2, max_samples=3, sample_time_s=0.5)
    records_of(session(executor, writer, cases(32), limits=limits, memory_budget_bytes=77))
    order = executor.orders[0]
    assert (order.timeout_s, order.timeout_reason) == (9, "the time limit of a case")
    assert (order.min_samples, order.max_samples, order.sample_time_s) == (2, 3, 0.5)
    assert order.memory_budget_bytes == 77


BUSY = Load(own_cores=0.5, other_cores=1.0)


def killed(of: Case, *, busy: bool) -> Record:
    """A case that met its limit of 60 s."""
    load = BUSY if busy else None
    found = record_of(of, Outcome.TIMEOUT, message="killed after 60 s")
    return found.model_copy(update={"wall_ms": 60e3, "load": load})


def disturbed_first(n_attempts: int, *, busy: bool = True) -> Played:
    """The reformer meets its limit at 32 tokens, as often as said."""
    tries = []

    def play(of: Case) -> Record:
        if (of.variant, of.length) == ("reformer", 32):
            tries.append(of)
            if len(tries) <= n_attempts:
                return killed(of, busy=busy)
        return record_of(of)

    return Played(play)


def test_a_case_disturbed_once_is_tried_again_and_its_longer_lengths_are_measured(writer):
    executor = disturbed_first(1)
    records = records_of(session(executor, writer, cases(32, 64)))
    assert executor.started == [
        ("reformer", 32),
        ("transformer", 32),
        ("reformer", 32),
        ("reformer", 64),
        ("transformer", 64),
    ]
    assert {r.outcome for r in records} == {Outcome.OK}
    first = next(r for r in records if r.case == case("reformer", length=32))
    assert first.attempt == 2
    assert load_run(writer.folder).records == records
    lines = (writer.folder / "records.jsonl").read_text().splitlines()
    assert len(lines) == 5, "the first attempt is kept as well"
    assert "other processes took 1.0 of 2 cores, so it is tried again" in lines[0]


def test_a_case_disturbed_twice_is_tried_once_more_at_the_end(writer):
    executor = disturbed_first(2)
    records = records_of(session(executor, writer, cases(32, 64, 128)))
    assert executor.started[-3:] == [("reformer", 32), ("reformer", 64), ("reformer", 128)]
    assert {r.outcome for r in records} == {Outcome.OK}


def test_a_case_disturbed_every_time_ends_in_bounded_time_and_stops_its_series(writer):
    executor = disturbed_first(99)
    records = records_of(session(executor, writer, cases(32, 64)))
    assert executor.started.count(("reformer", 32)) == 3
    assert ("reformer", 64) not in executor.started
    assert [r.outcome for r in records if r.case.variant == "reformer"] == [
        Outcome.TIMEOUT,
        Outcome.SKIPPED,
    ]


def test_a_limit_met_on_an_idle_machine_is_evidence(writer):
    executor = disturbed_first(1, busy=False)
    records = records_of(session(executor, writer, cases(32, 64)))
    assert executor.started.count(("reformer", 32)) == 1
    skipped = next(r for r in records if r.case == case("reformer", length=64))
    assert skipped.outcome is Outcome.SKIPPED


def test_a_limit_far_beyond_what_others_speed_says_is_doubted(writer):
    """The other model has shown a speed at which the case is done in no time."""
    executor = disturbed_first(1, busy=False)
    asked = [case("transformer", length=16), *cases(32, 64)]
    known = {one.id: prediction(flops=10**6 * one.length) for one in asked}
    records = records_of(session(executor, writer, asked, predictions=known))
    assert executor.started.count(("reformer", 32)) == 2
    assert {r.outcome for r in records} == {Outcome.OK}


def test_no_other_attempt_is_made_without_time_for_a_whole_one(writer, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("reformer_bench.run.session.time.monotonic", lambda: now[0])

    def play(of: Case) -> Record:
        now[0] += 60.0
        return killed(of, busy=True)

    executor = Played(play)
    limits = DeviceTable(case_timeout_s=60, total_time_s=130)
    records = records_of(session(executor, writer, cases(32), limits=limits))
    assert executor.started == [("reformer", 32), ("transformer", 32)]
    assert all("killed after 60 s" in r.message for r in records)


def test_a_retry_counts_attempts_on(writer):
    before = [killed(case(length=32), busy=False)]
    executor = Played(record_of)
    (found,) = records_of(session(executor, writer, [case(length=32)], reopened=before))
    assert (found.attempt, found.outcome) == (2, Outcome.OK)
    assert found.time_limit_s == 60


def test_what_follows_from_one_reason_is_told_at_once(writer):
    executor = disturbed_first(1, busy=False)
    told = told_of(session(executor, writer, cases(32, 64, 128, 256)))
    batches = [p.records for p in told if len(p.records) > 1]
    assert [[(r.case.variant, r.case.length) for r in batch] for batch in batches] == [
        [("reformer", 64), ("reformer", 128), ("reformer", 256)]
    ]
    assert told[-1].done == told[-1].total == 8


def test_the_time_left_is_near_the_time_it_takes(writer, monkeypatch):
    """Two models of different speed and growth, on a clock of their own."""
    now = [0.0]
    monkeypatch.setattr("reformer_bench.run.session.time.monotonic", lambda: now[0])
    power = {"reformer": 1.0, "transformer": 1.6}
    speed = {"reformer": 2.0, "transformer": 3.0}
    asked = cases(1024, 2048, 4096, 8192, 16384)
    known = {one.id: prediction(flops=int(10 * one.length ** power[one.variant])) for one in asked}

    def play(of: Case) -> Record:
        step_ms = known[of.id].flops / speed[of.variant] / 1e3
        # Two steps under the probes, one sample, and one for counting where it is short.
        wall_ms = (3 + (step_ms <= 2000)) * step_ms + 700
        now[0] += wall_ms / 1e3
        return record_of(of, step_ms=step_ms).model_copy(update={"wall_ms": wall_ms})

    limits = DeviceTable(case_timeout_s=1e6, max_samples=1, sample_time_s=0.001)
    told = told_of(session(Played(play), writer, asked, limits=limits, predictions=known))
    total_s = now[0]
    after_the_first_length = [p for p in told if 2 <= p.done < len(asked)]
    for progress in after_the_first_length:
        assert progress.left_s == pytest.approx(total_s - progress.elapsed_s, rel=0.1)
    # The case that has just been started is part of what is left.
    started = [p for p in told if not p.records][-1]
    assert started.left_s == pytest.approx(total_s - started.elapsed_s, rel=0.1)


def of_two_suites(
    executor: Played, folder: Path, earlier: Sequence[Record] = ()
) -> tuple[list[Standing], list[Record]]:
    """Run a suite of suites, each by its own limits, to its end."""
    parts = [
        suite(name="one", device={"cpu": {"case_timeout_s": 1}}),
        suite(name="two", device={"cpu": {"case_timeout_s": 2}}),
    ]
    asked = run_info(suite=parts[0])
    whole = make_plan(parts[0], parts, "cpu")
    with RunWriter(folder, asked) as writer:
        made = Session(whole, executor, writer, asked, earlier=earlier)
        told = told_of(made)
    assert load_run(folder).records == made.records
    return told, made.records


def test_each_part_has_its_own_limits_and_its_name_on_its_records(tmp_path):
    executor = Played(record_of)
    told, _ = of_two_suites(executor, tmp_path)
    assert [(o.case.suite, o.timeout_s) for o in executor.orders] == [("one", 1)] * 4 + [
        ("two", 2)
    ] * 4
    assert (told[-1].done, told[-1].total) == (8, 8)
    assert {standing.total for standing in told} == {8}
    assert [standing.done for standing in told if standing.records] == list(range(1, 9))


def test_what_runs_out_in_one_part_is_tried_in_the_next(tmp_path):
    executor = Played(
        lambda of: record_of(of, Outcome.DEVICE_OOM if of.suite == "one" else Outcome.OK)
    )
    of_two_suites(executor, tmp_path)
    lengths = {name: [] for name in ("one", "two")}
    for order in executor.orders:
        lengths[order.case.suite].append(order.case.length)
    assert lengths == {"one": [32, 32], "two": [32, 32, 64, 64]}


def test_what_has_a_record_in_any_part_is_not_repeated(tmp_path):
    _, records = of_two_suites(Played(record_of), tmp_path)
    again = Played(record_of)
    told, _ = of_two_suites(again, tmp_path, records)
    assert again.orders == []
    assert told == []


def test_an_executor_of_all_orders_gets_them_at_once(writer):
    class AllAtOnce(Played):
        takes_all = True

        def run(self, orders: Sequence[WorkOrder]) -> Iterator[Record]:
            assert len(orders) == 4
            yield from super().run(orders)

    told = told_of(session(AllAtOnce(record_of), writer, cases(32, 64)))
    assert [standing.records == () for standing in told] == [True] * 4 + [False] * 4
