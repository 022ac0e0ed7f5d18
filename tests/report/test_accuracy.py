"""Predicted peaks beside measured ones: pairs, their differences, and the summary's count."""

import pytest

from reformer_bench.report.accuracy import accuracy_table, accuracy_words, peaks
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome
from tests.builders import as_predicted, record


def test_exact_above_and_below_are_told_apart():
    records = [
        record("reformer", peak=1000, predicted=1000),
        record("transformer", peak=1000, predicted=1010),
        record("lsh-transformer", peak=1000, predicted=980),
    ]
    (words,) = accuracy_words(records)
    assert words == (
        "1 of 3 equal to the byte; worst -2.000% (lsh-transformer); "
        "1 below what was measured: lsh-transformer."
    )
    shown = [row.cells[-2:] for row in accuracy_table(records).rows]
    assert shown == [["0", ""], ["+10 B", "+1.000%"], ["-20 B", "-2.000%"]]


def test_all_exact_needs_no_worst():
    (words,) = accuracy_words([record(peak=1000, predicted=1000)])
    assert words == "1 of 1 equal to the byte; none below what was measured."


@pytest.mark.parametrize(
    "one",
    [
        record(peak=1000),
        as_predicted(record(peak=1000, predicted=1000)),
        record(outcome=Outcome.DEVICE_OOM, peak=1000, predicted=1000),
    ],
    ids=["no prediction", "nothing measured", "not finished"],
)
def test_a_case_without_both_peaks_is_no_pair(one):
    assert peaks(one) is None
    with pytest.raises(InputError, match="no case of the run has both"):
        accuracy_words([one])


def test_cases_left_out_are_named_or_counted():
    words = accuracy_words(
        [
            record("reformer", peak=1000, predicted=1000),
            record("transformer", outcome=Outcome.ERROR, peak=None, message="why it failed"),
            record("lsh-transformer", peak=1000),
        ]
    )
    assert words[1:] == [
        "transformer: error: why it failed",
        "1 case without a predicted or a measured peak.",
    ]
