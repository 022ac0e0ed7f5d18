"""Coverage: what was measured, why the rest was not, and how busy the machine was."""

from pathlib import Path

import pytest

from reformer_bench.report.coverage import coverage_words, load_words, lost_variants, retry_words
from reformer_bench.schema.record import Load, Outcome
from tests.builders import case, record_of

BUSY = Load(own_cores=0.5, other_cores=1.0)


def made(outcome: Outcome, variant: str = "reformer", length: int = 64, *, busy: bool = False):
    found = record_of(case(variant, length=length), outcome)
    return found.model_copy(update={"load": BUSY if busy else None})


def test_every_reason_has_its_count_the_most_frequent_first():
    outcomes = [Outcome.OK, Outcome.TIMEOUT, *[Outcome.SKIPPED] * 3, *[Outcome.HOST_OOM] * 2]
    assert coverage_words([made(outcome) for outcome in outcomes]) == (
        "1 of 7 cases measured. Without a result: 3 longer than one that stopped, "
        "2 out of memory, 1 time limit."
    )
    assert coverage_words([made(Outcome.OK)] * 2) == "All 2 cases measured."


@pytest.mark.parametrize(
    ("outcome", "hint"),
    [(Outcome.TIMEOUT, True), (Outcome.ERROR, True), (Outcome.OVER_BUDGET, False)],
)
def test_a_retry_is_offered_where_it_may_help(outcome, hint):
    words = retry_words([made(Outcome.OK), made(outcome)], Path("out"))
    assert (words == "--out out --retry runs again what has no result.") is hint


def test_a_busy_machine_is_said_with_how_much_of_it_others_took():
    calm, busy = made(Outcome.OK), made(Outcome.OK, busy=True)
    assert load_words([calm]) is None
    assert load_words([calm, busy]).startswith(
        "1 of 2 results were measured while other processes took 1.0 of 2 cores on average"
    )


def test_a_variant_is_lost_without_any_result_and_with_a_disturbed_limit():
    records = [
        made(Outcome.TIMEOUT, "reformer", busy=True),
        made(Outcome.TIMEOUT, "transformer", busy=False),
        made(Outcome.TIMEOUT, "lsh-transformer", 128, busy=True),
        made(Outcome.OK, "lsh-transformer", 64),
    ]
    assert lost_variants(records) == ["reformer"]
