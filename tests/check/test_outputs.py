"""The report of a comparison: what a maintainer reads, and what other programs read."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from reformer_bench.check.compare import Comparison, Status, compare
from reformer_bench.check.outputs import (
    check_github,
    check_json,
    check_junit,
    check_markdown,
    check_table,
)
from reformer_bench.check.words import message, summary
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.units import MIB
from tests.builders import record


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
        "measured in the baseline, and now out of memory: 50% | <gone>"
    )


def printed(comparison: Comparison, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(check_table(comparison))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 200])
def test_what_happened_is_said_before_the_table_of_figures_and_a_summary(comparison, width):
    lines = printed(comparison, width)
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    table = text.index("case figure" if width == 200 else "figure")
    assert text.index("allocated peak grew from") < table < text.index("200 MiB 220 MiB +10%")
    assert text.index("regression") < text.index("ok, reformer" if width == 80 else "ok reformer")
    for figures in ("200 MiB 220 MiB +10% 0.5%", "200 MiB 200 MiB = 0.5%"):
        assert figures in text
    told = [line.split(",")[0] for line in lines if ", train_step, 1K × 1: " in line]
    assert told == ["flash-transformer", "transformer", "lsh-transformer"]
    assert lines[-1] == "5 cases: 1 now out of memory, 1 regression, 1 missing, 1 new, 1 ok"
    assert max(map(len, lines)) <= width


def test_cases_that_cannot_be_compared_for_one_reason_are_told_in_one_line():
    old = [record(), record("transformer")]
    new = [
        one.model_copy(
            update={"environment": one.environment.model_copy(update={"torch_threads": 8})}
        )
        for one in old
    ]
    assert printed(compare(old, new), 120)[0] == (
        "2 cases not comparable: env.torch_threads: 2 then, 8 now (--allow env.torch_threads "
        "accepts it)"
    )


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (Outcome.TIMEOUT, Outcome.TIMEOUT, "not measured in either: time limit then, time limit"),
        (Outcome.SKIPPED, Outcome.DEVICE_OOM, "not measured in either: not tried then, out of mem"),
        (Outcome.TIMEOUT, Outcome.OK, "time limit in the baseline, and now measured"),
        (Outcome.SKIPPED, Outcome.OK, "not tried in the baseline, and now measured"),
        (None, Outcome.TIMEOUT, "not in the baseline, and time limit now"),
        (None, Outcome.OK, "not in the baseline"),
    ],
)
def test_a_case_without_a_figure_is_named_as_what_it_is(then, now, said):
    old = [] if then is None else [record(outcome=then)]
    comparison = compare(old, [record(outcome=now)])
    (found,) = comparison.cases
    assert said in message(found)
    assert " ok" not in summary(comparison)
    assert ElementTree.fromstring(check_junit(comparison)).get("skipped") == "1"


def test_what_is_counted_has_its_plural():
    names = ("reformer", "transformer", "flash-transformer")
    old = [record(name, peak=200 * MIB) for name in names]
    new = [record(name, peak=220 * MIB) for name in names]
    assert summary(compare(old, new)) == "3 cases: 3 regressions"
    assert summary(compare(new, old)) == "3 cases: 3 improvements"
    assert summary(compare(old[:1], new[:1])) == "1 case: 1 regression"


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
        "flash-transformer, train_step, 1K × 1: measured in the baseline, and now out of memory: "
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
