"""Skip rules: what one record says about longer cases."""

import pytest

from reformer_bench.run.skip import no_time_message, skip_message, stopped_by
from reformer_bench.spec.record import Outcome
from tests.run.builders import case, record


@pytest.mark.parametrize("outcome", list(Outcome))
def test_memory_and_time_stop_a_series_and_errors_do_not(outcome):
    stop = record(case(length=128), outcome)
    stops = stopped_by(case(length=256), [stop]) is stop
    assert stops == (
        outcome.value in {"device-oom", "host-oom", "over-budget", "timeout", "killed"}
    )


def test_only_longer_cases_of_the_same_series_are_stopped():
    stop = record(case(length=128), Outcome.HOST_OOM)
    assert stopped_by(case(length=64), [stop]) is None
    assert stopped_by(case(length=128), [stop]) is None
    assert stopped_by(case("transformer", length=256), [stop]) is None
    assert stopped_by(case(length=256, batch=2), [stop]) is None
    assert stopped_by(case(length=256, workload="forward"), [stop]) is None


def test_the_message_names_the_shortest_record_that_stopped_it():
    first = record(case(length=128), Outcome.HOST_OOM)
    later = record(case(length=256), Outcome.TIMEOUT)
    stop = stopped_by(case(length=512), [later, first])
    assert stop is first
    expected = f"not tried: reformer ended with host-oom at 128 tokens (case {first.case_id})"
    assert skip_message(first) == expected


@pytest.mark.parametrize(
    ("predicted_ms", "left_s", "words"),
    [
        (None, None, None),
        (None, 5.0, None),
        (59_000, None, None),
        (61_000, None, "predicted to take 61 s, more than the time limit of a case of 60 s"),
        (4_000, 5.0, None),
        (6_000, 5.0, "predicted to take 6 s, with 5 s left of the run's 300 s"),
        (None, 0.0, "the run's 300 s are used up"),
    ],
)
def test_a_case_is_started_only_with_time_for_it(predicted_ms, left_s, words):
    message = no_time_message(predicted_ms, 60.0, left_s, 300.0)
    assert message == (None if words is None else f"not started: {words}")
