"""A suite of suites: one run, each part by its own limits, told as one."""

from collections.abc import Sequence
from typing import Any

from reformer_bench.run.expand import make_plan
from reformer_bench.run.session import Session, Standing
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.store import RunWriter, load_run
from tests.run.builders import info, suite
from tests.run.builders import record as make_record


class Executor:
    """Ends every case at once; those of ``failing`` run out of memory."""

    takes_all = False

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.orders: list[Any] = []

    def run(self, orders):
        for order in orders:
            self.orders.append(order)
            outcome = Outcome.OK
            if order.case.suite == self.failing:
                outcome = Outcome.DEVICE_OOM
            yield make_record(outcome=outcome).model_copy(
                update={"case": order.case, "case_id": order.case.id}
            )


def measure(folder, executor, earlier: Sequence[Record] = ()) -> tuple[list[Standing], Session]:
    parts = [
        suite(name="one", device={"cpu": {"case_timeout_s": 1}}),
        suite(name="two", device={"cpu": {"case_timeout_s": 2}}),
    ]
    asked = info(suite=parts[0])
    plan = make_plan(parts[0], parts, "cpu")
    with RunWriter(folder, asked) as writer:
        session = Session(plan, executor, writer, asked, earlier=earlier)
        told = list(session.run())
    assert [r.case_id for r in load_run(folder).records] == [r.case_id for r in session.records]
    return told, session


def test_each_part_has_its_own_limits_and_its_name_on_its_records(tmp_path):
    executor = Executor()
    told, _ = measure(tmp_path, executor)
    assert [(o.case.suite, o.timeout_s) for o in executor.orders] == [("one", 1)] * 4 + [
        ("two", 2)
    ] * 4
    assert (told[-1].done, told[-1].total) == (8, 8)
    assert {progress.total for progress in told} == {8}


def test_what_runs_out_in_one_part_is_tried_in_the_next(tmp_path):
    executor = Executor(failing="one")
    measure(tmp_path, executor)
    lengths = {name: [] for name in ("one", "two")}
    for order in executor.orders:
        lengths[order.case.suite].append(order.case.length)
    assert lengths == {"one": [32, 32], "two": [32, 32, 64, 64]}


def test_what_has_a_record_is_not_repeated(tmp_path):
    _, first = measure(tmp_path, Executor())
    again = Executor()
    told, _ = measure(tmp_path, again, first.records)
    assert again.orders == []
    assert told == []
