"""Decisions: what one record says of longer cases, forecasts, and time limits that are doubted."""

import pytest

from reformer_bench.run.decide import Estimate, Forecast, doubt, hopeless, skip_message, stopped_by
from reformer_bench.schema.record import Load, Outcome
from reformer_bench.schema.suite import DeviceTable
from tests.builders import case, prediction, record_of


@pytest.mark.parametrize("outcome", list(Outcome))
def test_memory_and_time_stop_a_series_and_errors_do_not(outcome):
    stop = record_of(case(length=128), outcome)
    stops = stopped_by(case(length=256), [stop]) is stop
    assert stops == (
        outcome.value in {"device-oom", "host-oom", "over-budget", "timeout", "killed"}
    )


def test_only_longer_cases_of_the_same_series_are_stopped():
    stop = record_of(case(length=128), Outcome.HOST_OOM)
    assert stopped_by(case(length=64), [stop]) is None
    assert stopped_by(case(length=128), [stop]) is None
    assert stopped_by(case("transformer", length=256), [stop]) is None
    assert stopped_by(case(length=256, batch=2), [stop]) is None
    assert stopped_by(case(length=256, workload="forward"), [stop]) is None


def test_the_message_names_the_shortest_record_that_stopped_it():
    first = record_of(case(length=128), Outcome.HOST_OOM)
    later = record_of(case(length=256), Outcome.TIMEOUT)
    stop = stopped_by(case(length=512), [later, first])
    assert stop is first
    expected = f"not tried: reformer ran out of memory at 128 tokens (case {first.case_id})"
    assert skip_message(first) == expected


def test_every_outcome_that_stops_has_its_words():
    for outcome in (one for one in Outcome if one.is_limit):
        assert skip_message(record_of(case(length=128), outcome)).startswith("not tried: reformer ")


# One sample, no warm-up, no step for counting: a case is three steps.
LIMITS = DeviceTable(max_samples=1, sample_time_s=0.1)
BUSY = Load(own_cores=0.5, other_cores=1.0)


def ended(variant: str, length: int, step_ms: float, *, busy: bool = False):
    found = record_of(case(variant, length=length), step_ms=step_ms)
    return found.model_copy(update={"wall_ms": 3 * step_ms, "load": BUSY if busy else None})


def operations(*cases, power: float = 1.0):
    return {one.id: prediction(flops=round(1e6 * one.length**power)) for one in cases}


def forecast(records, *, power: float | None = None, extra=()):
    of = [r.case for r in records] + list(extra)
    known = {} if power is None else operations(*of, power=power)
    return Forecast(records, known, LIMITS)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("counted", [True, False], ids=["by operations", "by length"])
def test_a_power_law_is_continued_exactly(power, counted):
    records = [ended("reformer", n, 10 * n**power) for n in (512, 1024, 2048)]
    one = case(length=8192)
    found = forecast(records, power=power if counted else None, extra=[one]).of(one)
    assert found.is_own
    assert found.ms == pytest.approx(3 * 10 * 8192**power)


def test_one_point_grows_as_its_operations_do():
    one = case(length=2000)
    records = [ended("reformer", 1000, 3000.0)]
    assert forecast(records, power=2.0, extra=[one]).of(one).ms == pytest.approx(3 * 4 * 3000)
    assert forecast(records).of(one).ms == pytest.approx(3 * 2 * 3000)


def test_a_leap_between_two_lengths_is_not_believed_beyond_its_bound():
    leap = [ended("reformer", 100, 30.0), ended("reformer", 200, 30_000.0)]
    assert forecast(leap).of(case(length=400)).ms == pytest.approx(3 * 30_000 * 2**2.2)


def test_lengths_that_were_disturbed_are_left_out_where_others_were_not():
    one = case(length=4096)
    records = [
        ended("reformer", 1024, 3000.0),
        ended("reformer", 2048, 90_000.0, busy=True),
    ]
    found = forecast(records).of(one)
    assert found.ms == pytest.approx(3 * 4 * 3000)
    assert not found.disturbed
    assert forecast(records[1:]).of(one).disturbed


def test_a_first_length_is_guessed_from_the_speed_of_other_models():
    one = case(length=64)
    records = [ended("transformer", 64, 3000.0), ended("transformer", 128, 99_000.0)]
    assert forecast(records).of(one) is None, "without its operations nothing is known"
    found = forecast(records, power=1.0, extra=[one]).of(one)
    assert not found.is_own
    assert found.ms == pytest.approx(3.2 * 3000)


def test_what_a_case_took_beyond_its_steps_it_takes_again():
    slow = ended("reformer", 1000, 3000.0).model_copy(update={"wall_ms": 3 * 3000 + 500})
    assert forecast([slow]).of(case(length=2000)).ms == pytest.approx(3 * 6000 + 500)


def test_nothing_is_known_without_a_shorter_case_that_ended():
    assert forecast([]).of(case(length=100)) is None
    assert forecast([ended("reformer", 200, 5.0)]).of(case(length=100)) is None
    assert forecast([record_of(case(length=50), Outcome.TIMEOUT)]).of(case(length=100)) is None


def test_probed_steps_count_as_slow_as_they_were_and_short_steps_more_often():
    slow = record_of(case(length=100), step_ms=3000.0, cold_ms=6000.0)
    slow = slow.model_copy(update={"wall_ms": 0.0})
    assert forecast([slow]).of(case(length=200)).ms == pytest.approx(6000 * (2 * 2.0 + 1))
    fast = record_of(case(length=100), step_ms=10.0).model_copy(update={"wall_ms": 0.0})
    many = Forecast([fast], {}, DeviceTable(max_samples=9, sample_time_s=1.0))
    # Two under the probes, one counted, three to warm up, nine samples.
    assert many.of(case(length=200)).ms == pytest.approx(20 * 15)


def stopped(outcome: Outcome = Outcome.TIMEOUT, *, wall_s: float = 45.0, others: float = 0.0):
    load = Load(own_cores=1.5, other_cores=others)
    return record_of(case(), outcome).model_copy(update={"wall_ms": wall_s * 1e3, "load": load})


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
