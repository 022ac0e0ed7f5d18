"""Predictions in a run: what doesn't fit isn't started, and records say what was predicted."""

import pytest

from reformer_bench.run.predictions import Predicted, predict_all, predicted_record
from reformer_bench.run.session import Session
from reformer_bench.schema.record import AllocatorMemory, Outcome, PhasePeak
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.store import RunWriter
from tests.run.builders import case, environment, info, plan, record

MIB = 2**20


class Started:
    """An executor that keeps what it was asked to run; every case ends well."""

    takes_all = False

    def __init__(self) -> None:
        self.cases = []

    def run(self, orders):
        for order in orders:
            self.cases.append(order.case)
            yield record(order.case)

    def describe(self, device):
        raise NotImplementedError

    def close(self) -> None:
        pass


def predicted(peak_bytes: int) -> Predicted:
    peak = PhasePeak(phase="forward", allocated_bytes=peak_bytes)
    return Predicted(AllocatorMemory(source="fake-tensor", cold=(peak,)), flops=1)


@pytest.fixture
def writer(tmp_path):
    with RunWriter(tmp_path / "run", info()) as writer:
        yield writer


def run(writer, cases, predictions, limits=None, spent_s=0.0, **changes):
    executor = Started()
    session = Session(
        plan(cases, limits),
        executor,
        writer,
        info(**changes),
        predictions=predictions,
        spent_s=spent_s,
    )
    for _ in session.run():
        pass
    return executor.cases, session.records


def test_a_case_predicted_over_the_budget_is_not_started_and_says_how_much(writer):
    cases = [case(length=n) for n in (32, 64, 128)]
    predictions = {c.id: predicted(c.length * MIB) for c in cases}
    started, records = run(writer, cases, predictions, memory_budget_bytes=64 * MIB)
    # At the budget exactly, it fits.
    assert started == cases[:2]
    assert records[2].outcome is Outcome.OVER_BUDGET
    assert records[2].message == (
        "not started: predicted to take 128 MiB, more than the 64 MiB available"
    )
    assert [r.memory.predicted_peak_bytes for r in records] == [n * MIB for n in (32, 64, 128)]


def test_without_a_budget_the_device_is_the_budget(writer):
    one = case()
    device = environment(device_memory_bytes=MIB)
    _, (found,) = run(writer, [one], {one.id: predicted(MIB + 1)}, environment=device)
    assert found.outcome is Outcome.OVER_BUDGET


def test_a_case_that_is_not_started_for_another_reason_has_its_prediction_too(writer):
    one = case()
    limits = DeviceTable(total_time_s=1.0)
    _, (found,) = run(writer, [one], {one.id: predicted(5)}, limits, spent_s=2.0)
    assert found.outcome is Outcome.TIMEOUT
    assert found.memory.predicted_peak_bytes == 5


def test_a_case_that_can_not_be_predicted_is_started(writer):
    one = case()
    started, (found,) = run(writer, [one], {one.id: Predicted(problem="no")}, memory_budget_bytes=1)
    assert started == [one]
    assert found.memory.predicted_peak_bytes is None


@pytest.mark.parametrize(
    ("given", "budget", "outcome"),
    [
        (predicted(MIB), MIB, Outcome.OK),
        (predicted(MIB), MIB - 1, Outcome.OVER_BUDGET),
        (predicted(MIB), None, Outcome.OK),
        (Predicted(problem="reads a value"), None, Outcome.ERROR),
    ],
    ids=["fits exactly", "one byte too many", "no budget", "not predictable"],
)
def test_a_record_of_a_prediction_has_an_outcome(given, budget, outcome):
    found = predicted_record(case(), given, environment(), budget)
    assert found.outcome is outcome
    assert found.timing is None
    assert (found.message is None) is (outcome is Outcome.OK)


def test_workers_predict_each_case_under_its_own_id():
    cases = [case(length=n) for n in range(16, 25)]
    found = predict_all(cases)
    assert set(found) == {c.id for c in cases}
    peaks = [found[c.id].peak_bytes for c in cases]
    assert None not in peaks
    assert peaks[0] < peaks[-1]
