"""The report of a comparison: what a maintainer reads, and what other programs read."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from reformer_bench.analysis.regression import Comparison, Status, compare
from reformer_bench.report.check_export import (
    check_github,
    check_json,
    check_junit,
    check_markdown,
)
from reformer_bench.report.check_table import check_table
from reformer_bench.report.check_words import message
from reformer_bench.spec.record import Outcome
from reformer_bench.spec.units import MIB
from tests.report.builders import record


@pytest.fixture
def comparison() -> Comparison:
    old = [
        record("reformer", peak=200 * MIB),
        record("transformer", peak=200 * MIB),
        record("flash-transformer"),
        record("lsh-transformer"),
    ]
    new = [
        record("reformer", peak=200 * MIB),
        record("transformer", peak=220 * MIB),
        record("flash-transformer", outcome=Outcome.HOST_OOM, message="50% | <gone>"),
        record("reformer", 2048),
    ]
    return compare(old, new)


def words(comparison: Comparison, variant: str) -> str:
    (found,) = [c for c in comparison.cases if c.case.variant == variant and c.old is not None]
    return message(found)


def test_a_regression_names_figure_amount_tolerance_phase_and_kind(comparison):
    assert words(comparison, "transformer") == (
        "transformer, train_step, 1K × 1: allocated peak grew from 200 MiB to 220 MiB "
        "(+20 MiB, +10%; tolerance 0.5%), in backward. Grew: activations +7.5 MiB, "
        "optimizer +5 MiB, parameters +2.5 MiB and 2 more"
    )


def test_a_case_that_no_longer_fits_says_how_it_ended(comparison):
    assert words(comparison, "flash-transformer").endswith(
        "used to fit, and now ends in out of memory: 50% | <gone>"
    )


def test_the_table_has_every_case_the_worst_first_and_a_summary(comparison):
    out = io.StringIO()
    Console(file=out, width=160).print(check_table(comparison))
    lines = out.getvalue().splitlines()
    names = [
        line.split(",")[0] for line in lines[2:] if ", train_step, " in line and ": " not in line
    ]
    assert names == ["flash-transformer", "transformer", "lsh-transformer", "reformer", "reformer"]
    assert "200 MiB" in out.getvalue()
    assert lines[-1] == "5 cases: 1 now out of memory, 1 regression, 1 missing, 1 new, 1 ok"


def test_markdown_puts_the_worst_first_and_folds_the_rest(comparison):
    text = check_markdown(comparison)
    assert text.startswith("### ❌ Memory: 5 cases: 1 now out of memory, 1 regression")
    shown, folded = text.split("<details>")
    assert shown.index("flash-transformer") < shown.index("| transformer")
    assert "1 unchanged" in folded
    assert "50% \\| &lt;gone>" in shown
    assert check_markdown(compare([record()], [record()])).startswith("### ✅")


def test_junit_has_a_test_for_each_case(comparison):
    suite = ElementTree.fromstring(check_junit(comparison))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "2", "1")
    assert suite.get("skipped") == "1"
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"transformer[train_step-1024x1]", "flash-transformer[train_step-1024x1]"}


def test_github_annotations_are_one_line_each_with_its_signs_escaped(comparison):
    lines = check_github(comparison).splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "::error title=now out of memory%3A flash-transformer%2C train_step%2C 1K × 1::"
        "flash-transformer, train_step, 1K × 1: used to fit, and now ends in out of memory: "
        "50%25 | <gone>"
    )
    assert [line.split()[0] for line in lines] == ["::error"] * 3 + ["::notice"] * 2


def test_json_holds_bytes(comparison):
    data = json.loads(check_json(comparison))
    assert data["summary"] == {s.value: 1 for s in Status if comparison.having(s)}
    (found,) = [case for case in data["cases"] if case["status"] == "regression"]
    change = next(c for c in found["changes"] if c["phase"] is None and c["unit"] == "bytes")
    assert (change["old"], change["new"]) == (200 * MIB, 220 * MIB)
    assert found["growths"][0]["kind"] == "activations"


def test_notes_say_what_was_passed_over():
    old = record()
    environment = old.environment.model_copy(update={"cpu_count": 64})
    new = old.model_copy(update={"environment": environment})
    assert "The resident set is not compared: env.cpu_count: 2 then, 64 now." in check_markdown(
        compare([old], [new])
    )
