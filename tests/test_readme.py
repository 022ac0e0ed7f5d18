"""The figures in the README are those of the reference runs, as the code prints them now."""

import re
from pathlib import Path

import pytest

from reformer_bench.claims.paper import judge_claims
from reformer_bench.claims.remarks import remarks
from reformer_bench.claims.table import claims_markdown
from reformer_bench.report.export import export_markdown
from reformer_bench.run.expand import expand
from reformer_bench.schema.suite import find_suite
from reformer_bench.store import load_run

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="not a checkout")


def section(title: str) -> str:
    """The text under a heading, to the next of the same level."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> set[str]:
    """The rows of a text's tables that start with a length."""
    return set(re.findall(r"^\| \d+[KM]? \|.*$", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "pattern"),
    [("What it prints", "seq-scaling-*"), ("Beside other implementations", "peers-*")],
)
def test_tables_are_what_the_reference_runs_print(title, pattern):
    printed: set[str] = set()
    for folder in REFERENCE.glob(pattern):
        run = load_run(folder)
        baseline = None if run.info is None else run.info.suite.baseline_variant
        printed |= rows(export_markdown(run.records, "summary", baseline))
    shown = rows(section(title))
    assert shown
    assert shown <= printed


def test_notes_under_the_first_table_are_what_the_reference_run_prints():
    (folder,) = REFERENCE.glob("seq-scaling-*")
    printed = export_markdown(load_run(folder).records, "summary", None).splitlines()
    shown = re.findall(
        r"^(?:Peak|Throughput|Time limit|AMD EPYC).*\.$", section("What it prints"), re.MULTILINE
    )
    assert len(shown) == 4
    assert set(shown) <= set(printed)


def test_the_suite_that_is_shown_is_one(tmp_path):
    text = README.split("```toml\nname = ", 1)[1].split("```", 1)[0]
    (tmp_path / "mine.toml").write_text(f"name = {text}")
    cases = expand(find_suite(str(tmp_path / "mine.toml")), "cpu")
    assert {case.model.n_hashes for case in cases} == {2, 8}


def test_the_claims_are_judged_as_the_reference_runs_say():
    records = [
        record
        for pattern in ("paper-*", "param-offload-*", "million-*")
        for folder in sorted(REFERENCE.glob(pattern))
        for record in load_run(folder).records
    ]
    text = claims_markdown(judge_claims(records), remarks(records))
    (kept,) = REFERENCE.glob("paper-*/claims.md")
    assert kept.read_text() == text
    shown = re.findall(r"-?\d+\.\d\d \[[^]]*\]", section("The paper, claim by claim"))
    assert shown
    assert [figure for figure in shown if figure not in text] == []
