import pytest

from reformer_bench.report.groups import group_records
from reformer_bench.report.words import (
    mismatch_notes,
    outcome_words,
    percent,
    split_name,
    target_words,
    three_figures,
)
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.target import TargetConfig
from tests.builders import record, sweep


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (4.8, "4.80"),
        (18.04, "18.0"),
        (328.4, "328"),
        (999.7, "1,000"),
        (1234.0, "1,230"),
        (1_987_654.0, "1,990,000"),
    ],
)
def test_three_figures_never_use_an_exponent(value: float, text: str) -> None:
    assert three_figures(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.004, "0.4%"), (0.0996, "10%"), (0.5, "50%")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("reformer", ["reformer"]),
        ("chunked-reversible-transformer", ["chunked-", "reversible-", "transformer"]),
        ("lsh-h4_c64", ["lsh-h4_c64"]),
        ("averyveryverylongname", ["averyveryverylongname"]),
        ("-odd--", ["-odd--"]),
    ],
)
def test_names_break_after_hyphens_and_lose_nothing(name: str, lines: list[str]) -> None:
    assert split_name(name, 12) == lines
    assert "".join(split_name(name, 3)) == name


def test_out_of_memory_says_whose_memory_on_a_gpu() -> None:
    assert outcome_words(record(outcome=Outcome.HOST_OOM, device="cuda")) == "out of host memory"
    assert outcome_words(record(outcome=Outcome.HOST_OOM)) == "out of memory"
    assert outcome_words(record(outcome=Outcome.SKIPPED)) == "–"


def test_every_outcome_has_words() -> None:
    assert all(outcome_words(record(outcome=outcome)) for outcome in Outcome)


def test_mismatches_of_the_longest_case_are_told():
    records = sweep()
    told = {"library": "transformers 5.1.0", "mismatches": "9 parameters instead of 8"}
    records = [
        record.model_copy(update={"settings": {**told, "length": str(record.case.length)}})
        if record.case.variant == "reformer"
        else record
        for record in records
    ]
    (note,) = mismatch_notes(group_records(records)[0])
    assert note.startswith("reformer is transformers 5.1.0")
    assert "9 parameters instead of 8" in note


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("model.py:Net", "model.py:Net"),
        ("models/model.py:Net", "models/model.py:Net"),
        ("/home/me/model.py:Net", "…/model.py:Net"),
        ("package.module:Net", "package.module:Net"),
        ("hf:gpt2", "hf:gpt2"),
        ("hf:./small", "hf:./small"),
        ("hf:/models/small", "hf:…/small"),
    ],
)
def test_a_target_is_shown_as_it_can_be_typed(target: str, shown: str) -> None:
    case = record().case.model_copy(update={"model": TargetConfig(target=target)})
    assert target_words(case) == shown
