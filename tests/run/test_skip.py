"""Skip rules: what one record says about longer cases."""

import pytest

from reformer_bench.run.decide import skip_message, stopped_by
from reformer_bench.schema.record import Outcome
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
    expected = f"not tried: reformer ran out of memory at 128 tokens (case {first.case_id})"
    assert skip_message(first) == expected


def test_every_outcome_that_stops_has_its_words():
    for outcome in (one for one in Outcome if one.is_limit):
        assert skip_message(record(case(length=128), outcome)).startswith("not tried: reformer ")
