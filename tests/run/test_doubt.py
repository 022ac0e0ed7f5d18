"""Doubt: a time limit on a disturbed machine, or far from what was expected, is no evidence."""

import pytest

from reformer_bench.run.decide import Estimate, doubt, hopeless
from reformer_bench.schema.record import Load, Outcome
from tests.run.builders import case, record


def stopped(outcome: Outcome = Outcome.TIMEOUT, *, wall_s: float = 45.0, others: float = 0.0):
    load = Load(own_cores=1.5, other_cores=others)
    return record(case(), outcome).model_copy(update={"wall_ms": wall_s * 1e3, "load": load})


def own(seconds: float, *, disturbed: bool = False) -> Estimate:
    return Estimate(seconds * 1e3, is_own=True, disturbed=disturbed)


def others(seconds: float) -> Estimate:
    return Estimate(seconds * 1e3, is_own=False, disturbed=False)


@pytest.mark.parametrize(
    ("record_", "expected", "words"),
    [
        (stopped(others=1.0), None, "meanwhile other processes took 1.0 of 2 cores"),
        (stopped(others=0.2), None, None),
        (stopped(), own(22), "by its shorter lengths it takes 22 s"),
        (stopped(), own(23), None),
        (stopped(), others(5), "at the speed of the other models it takes 5 s"),
        (stopped(), others(6), None),
        (stopped(wall_s=0.0, others=1.0), own(1), None),
        (stopped(Outcome.HOST_OOM, others=1.0), own(1), None),
    ],
    ids=["busy", "hardly busy", "own far", "own near", "others far", "others near", "unstarted",
         "memory"],
)  # fmt: skip
def test_a_time_limit_is_doubted_for_a_reason(record_, expected, words):
    assert doubt(record_, expected) == words


def test_a_spare_processor_may_be_busy():
    """One thread on two cores: the other core is nobody's loss."""
    busy = stopped(others=1.0)
    alone = busy.environment.model_copy(update={"torch_threads": 1})
    assert doubt(busy.model_copy(update={"environment": alone}), None) is None


@pytest.mark.parametrize(
    ("expected", "roughly", "answer"),
    [
        (None, None, False),
        (others(100), None, False),
        (own(44), None, False),
        (own(46), None, True),
        (own(46), others(1), True),
        (own(46, disturbed=True), others(1), False),
        (own(46, disturbed=True), others(20), True),
        (own(46, disturbed=True), None, True),
    ],
    ids=["unknown", "only others", "in time", "too slow", "undisturbed counts",
         "disturbed and implausible", "disturbed and plausible", "disturbed alone"],
)  # fmt: skip
def test_a_case_is_hopeless_by_its_own_lengths(expected, roughly, answer):
    assert hopeless(expected, roughly, 45.0) is answer
