"""Baselines: what is kept of a run comes back, one case a line, and damage is named."""

from __future__ import annotations

import json

import pytest

from reformer_bench.schema.baseline import baseline_of
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome
from reformer_bench.store import load_baseline, save_baseline
from tests import builders


@pytest.fixture
def records():
    return [
        builders.record("reformer", 1024),
        builders.record("transformer", 1024, predicted=5_000_000, device="cuda"),
        builders.record("transformer", 2048, Outcome.DEVICE_OOM, message="no memory"),
    ]


def of_one_environment(records):
    environment = records[0].environment
    return [record.model_copy(update={"environment": environment}) for record in records]


def test_what_is_compared_comes_back_equal(records, tmp_path):
    records = of_one_environment(records)
    path = tmp_path / "new" / "ci.json"
    save_baseline(path, baseline_of(records))
    kept = load_baseline(path)
    for field in ("case_id", "case", "outcome", "message", "memory", "timing", "settings"):
        assert [getattr(r, field) for r in kept] == [getattr(r, field) for r in records]
    assert [record.environment for record in kept] == [record.environment for record in records]


def test_each_case_is_a_line(records, tmp_path):
    path = tmp_path / "ci.json"
    save_baseline(path, baseline_of(of_one_environment(records)))
    lines = path.read_text().splitlines()
    assert len(lines) == 2 + len(records)
    assert json.loads(lines[1].rstrip(","))["case"]["variant"] == "reformer"


def test_of_two_records_of_a_case_the_last_counts():
    first, last = builders.record(peak=100_000_000), builders.record(peak=200_000_000)
    (kept,) = baseline_of([first, last]).records()
    assert kept.memory == last.memory


def test_records_of_two_environments_make_no_baseline():
    with pytest.raises(InputError, match="one environment"):
        baseline_of([builders.record(), builders.record("transformer", device="cuda")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"baseline_version": 2}', "newer than the 1"),
        ('{"baseline_version": 1}', "is missing"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, said):
    path = tmp_path / "ci.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"ci.json: .*{said}"):
        load_baseline(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json: cannot be read"):
        load_baseline(tmp_path / "nothing.json")
