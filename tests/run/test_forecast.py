"""The forecast continues what shorter cases have shown."""

import pytest

from reformer_bench.run.forecast import case_ms, step_ms
from reformer_bench.spec.record import Outcome
from tests.run.builders import case, order, record


def history(power: float, *lengths: int):
    return [record(case(length=n), step_ms=n**power / 1e3) for n in lengths]


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_a_power_law_is_continued_exactly(power):
    assert step_ms(history(power, 512, 1024, 2048), 8192) == pytest.approx(8192**power / 1e3)


def test_one_point_grows_with_the_length():
    assert step_ms(history(2.0, 1000), 2000) == pytest.approx(2 * 1000**2 / 1e3)


def test_a_leap_between_two_lengths_is_not_believed_beyond_its_bound():
    leap = [record(case(length=100), step_ms=1), record(case(length=200), step_ms=1000)]
    assert step_ms(leap, 400) == pytest.approx(1000 * 2**2.2)


def test_nothing_is_known_without_a_shorter_case_that_ended():
    assert step_ms([], 100) is None
    assert step_ms(history(1.0, 200), 100) is None
    assert step_ms([record(case(length=50), Outcome.TIMEOUT)], 100) is None


def test_a_case_is_two_probed_steps_and_its_samples():
    slow = [record(case(length=100), step_ms=1000.0, cold_ms=2000.0)]
    predicted = case_ms(slow, order(case(length=200), sample_time_s=0.1, max_samples=9))
    assert predicted == pytest.approx(1.0 + 2000 * (2 * 2.0 + 1))
    fast = [record(case(length=100), step_ms=1.0)]
    predicted = case_ms(fast, order(case(length=200), sample_time_s=1.0, max_samples=9))
    assert predicted == pytest.approx(1.0 + 2 * (2 + 9))
