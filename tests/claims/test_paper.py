"""Each claim both ways: records that should support it, and records that should refute it."""

import pytest

from reformer_bench.claims.evidence import TOKENS, fitted
from reformer_bench.claims.fit import Censored, Fit, Point, fit_power
from reformer_bench.claims.judge import (
    Bounds,
    Expectation,
    Finding,
    Judgement,
    Verdict,
    finding,
    power,
)
from reformer_bench.claims.paper import CLAIMS, judge_claims
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB
from tests.builders import as_predicted, environment, record
from tests.claims.paper_data import (
    LENGTHS,
    REFUTING,
    SUPPORTING,
    attention_scaling,
    made,
    million,
    swapped,
    table_3,
)


def judgement(claim: str, records: list[Record]) -> Judgement:
    return next(found for found in judge_claims(records) if found.claim.id == claim)


def judged(k: int, fit: Fit | None) -> Finding:
    evidence = fitted(fit, TOKENS)
    return finding(Expectation("memory", power(k), lambda records: evidence), evidence)


@pytest.mark.parametrize("claim", SUPPORTING)
def test_data_as_the_paper_has_it_supports_the_claim(claim):
    found = judgement(claim, SUPPORTING[claim])
    assert found.verdict is Verdict.SUPPORTED, found.sentence
    assert all(one.evidence.figure is not None for one in found.findings)
    assert found.sentence.endswith(".")


@pytest.mark.parametrize("case", REFUTING)
def test_data_against_it_refutes_the_claim(case):
    claim, records = REFUTING[case]
    found = judgement(claim, records)
    assert found.verdict is Verdict.REFUTED, found.sentence
    assert found.sentence.startswith("Against it: ")


def test_without_records_nothing_is_judged_and_every_claim_of_the_paper_is_there():
    found = judge_claims([])
    assert {one.verdict for one in found} == {Verdict.NOT_MEASURABLE}
    assert len(found) == len(CLAIMS) == 13


def test_without_records_it_is_said_which_suite_would_measure_the_claim():
    assert (
        judgement("linear-lsh", []).sentence
        == "No run has a record of the suite attention-scaling."
    )
    assert judgement("table-3", []).sentence.endswith("of the suite table-3 or table-3-width.")


def test_a_fit_says_which_sizes_it_leaves_out():
    x = [256, 512, 1024, 2048, 4096]
    fit = fit_power([Point(n, 1e6 + n**2) for n in x])
    assert fit is not None
    assert len(fit.unsettled) == 2
    note = judged(2, fit).note
    assert "without the smallest 2 sizes, where the exponent still changes" in note


def test_a_leaner_model_that_is_larger_refutes_the_order_alone():
    heavier = [
        one if one.case.variant != "reformer" or one.case.suite != "table-3" else made(
            "table-3", "reformer", 200 * 2000 * one.case.length / 256, length=one.case.length,
            model={"n_layers": one.case.model.n_layers, "d_ff": one.case.model.d_ff},
        )
        for one in table_3()
    ]  # fmt: skip
    found = judgement("table-3", heavier)
    assert [one.expectation.bounds.unit for one in found.findings if one.holds is False] == [
        "ratio"
    ]


def test_swapping_cannot_be_judged_on_a_cpu():
    on_cpu = [one.model_copy(update={"environment": record().environment}) for one in swapped()]
    found = judgement("swap-params", on_cpu)
    assert found.verdict is Verdict.NOT_MEASURABLE
    assert "a device that has a memory of its own" in found.sentence


def test_predictions_for_a_gpu_say_what_swapping_leaves_on_it_beside_measurements_on_a_cpu():
    found = judgement("swap-params", [*made_on_cpu(), *map(as_predicted, swapped())])
    assert found.verdict is Verdict.NOT_MEASURABLE
    assert [one.holds for one in found.findings] == [True, None]
    assert found.findings[0].evidence.basis == "predicted"


def test_predictions_for_a_gpu_do_not_count_as_the_cpus():
    lone = record("reformer", 2**20, device="cuda", predicted=12 * GIB, suite="million")
    elsewhere = as_predicted(lone)
    assert judgement("million-tokens", [elsewhere]).verdict is Verdict.SUPPORTED
    found = judgement("million-tokens", [*made_on_cpu(), elsewhere])
    assert found.verdict is Verdict.NOT_MEASURABLE


def test_swapping_is_timed_where_both_were_timed():
    gone = [
        one.model_copy(update={"outcome": Outcome.DEVICE_OOM, "timing": None})
        if one.case.length == 16_384 and one.case.variant in ("none-8", "cpu-4")
        else one
        for one in swapped()
    ]
    kept, hidden = judgement("swap-params", gone).findings
    assert kept.holds
    assert "without swapping 0.90" in kept.note
    assert hidden.evidence.figure == pytest.approx(1.1)
    assert hidden.note == "2 layers at 16,384 tokens"


@pytest.mark.parametrize("outcome", [Outcome.DEVICE_OOM, Outcome.HOST_OOM])
def test_what_ran_out_of_memory_is_not_said_to_fit(outcome):
    (lone,) = million(12 * GIB)
    memory = lone.memory.model_copy(update={"allocator": None, "predicted_peak_bytes": 9 * GIB})
    failed = lone.model_copy(update={"outcome": outcome, "memory": memory})
    found = judgement("million-tokens", [failed])
    assert found.verdict is Verdict.NOT_MEASURABLE
    assert "ran out of memory" in found.findings[0].note


def made_on_cpu() -> list[Record]:
    return [one.model_copy(update={"environment": environment("cpu")}) for one in swapped()]


def test_a_prediction_stands_in_where_nothing_was_measured_and_is_called_one():
    killed = record(
        "reformer", 2**20, Outcome.TIMEOUT, predicted=12 * GIB, suite="seq-scaling", peak=None
    )
    found = judgement("million-tokens", [killed])
    assert found.verdict is Verdict.SUPPORTED
    assert found.findings[0].evidence.basis == "predicted"
    assert "predicted, not measured" in found.sentence


def test_a_measurement_goes_before_a_prediction():
    records = [
        *million(17 * GIB),
        record("reformer", 2**20, Outcome.TIMEOUT, predicted=12 * GIB, peak=None),
    ]
    assert judgement("million-tokens", records).findings[0].evidence.basis == "measured"


def test_predictions_are_fitted_beside_measurements_and_do_not_move_them():
    alone = judgement("linear-lsh", attention_scaling()).findings[0].evidence
    records = [
        one.model_copy(
            update={"memory": one.memory.model_copy(update={"predicted_peak_bytes": 9 * GIB})}
        )
        for one in attention_scaling()
    ]
    beside = judgement("linear-lsh", records).findings[0]
    assert (beside.evidence.figure, beside.evidence.points) == (alone.figure, alone.points)
    assert "predicted 0.00" in beside.note


def test_out_of_memory_sizes_are_said():
    records = attention_scaling()
    lost = [
        one.model_copy(update={"outcome": Outcome.DEVICE_OOM, "timing": None})
        if one.case.variant == "full" and one.case.length == LENGTHS[-1]
        else one
        for one in records
    ]
    found = judgement("quadratic-full", lost)
    assert found.verdict is Verdict.SUPPORTED
    assert "1 size ran out of memory or time" in found.findings[0].note


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ([(1, 1), (2, 2), (4, 4), (8, 8)], True),
        ([(1, 1), (2, 4), (4, 16), (8, 64)], False),
        ([(1, 1), (2, 2)], None),
        ([(1, 1), (2, 3.5), (4, 3)], None),
    ],
    ids=["inside", "outside", "no interval", "too wide"],
)
def test_an_exponent_holds_fails_or_cannot_tell(points, holds):
    fit = fit_power([Point(x, y) for x, y in points], [Censored(16)])
    assert judged(1, fit).holds is holds


def test_bounds_read_as_people_write_them():
    assert str(power(2)) == "1.75 to 2.25"
    assert str(power(0)) == "at most 0.25"
    assert str(Bounds(0, 16 * GIB, "bytes")) == "at most 16 GiB"
    assert str(Bounds(0.0, 1.05, "ratio")) == "at most 1.05"


def test_the_order_compares_equal_sizes_when_a_heavy_model_ran_out():
    records = [
        one.model_copy(update={"outcome": Outcome.DEVICE_OOM, "timing": None})
        if one.case.variant == "lsh-transformer" and one.case.length == 2048
        else one
        for one in table_3()
    ]
    order = judgement("table-3", records).findings[-1]
    assert order.holds is True
