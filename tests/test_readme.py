"""The documentation is whole, and its figures are those of the reference runs as printed now."""

import re
from pathlib import Path
from typing import get_args

import pytest

from reformer_bench.claims.paper import CLAIMS, judge_claims
from reformer_bench.claims.remarks import remarks
from reformer_bench.claims.table import claims_markdown
from reformer_bench.cli.main import COMMANDS
from reformer_bench.report.export import export_markdown
from reformer_bench.run.expand import expand
from reformer_bench.schema.devices import DEVICE_PROFILES
from reformer_bench.schema.model import PRESETS
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.suite import DeviceTable, Suite, Variant, find_suite, suite_names
from reformer_bench.store import load_run
from tests.snippets import DOCUMENTS

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="not a checkout")

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """The text under a heading of a document, to the next of the same level."""
    return text_of(name).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> set[str]:
    """The rows of a text's tables that start with a length."""
    return set(re.findall(r"^\| \d+[KM]? \|.*$", text, flags=re.MULTILINE))


# The documents hold together


def test_the_readme_is_a_front_page_from_which_every_other_document_is_reached():
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 200
    others = {str(path.relative_to(ROOT)) for path in DOCUMENTS} - {"README.md"}
    assert others <= set(re.findall(r"\]\(([^)#]+)", readme))


def anchors(path: Path) -> set[str]:
    """The headings of a document, as GitHub makes anchors of them."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@documents
def test_links_lead_to_files_and_headings_that_are_there(document):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@documents
def test_files_that_are_named_are_there(document):
    named = r"`((?:reformer_bench|tests|suites|results|docs)/[\w./-]+|\.ci/\w+)`"
    for path in re.findall(named, document.read_text(encoding="utf-8")):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def named_in_tables(name: str) -> set[str]:
    """Every word of code in the first column of a document's tables."""
    cells = re.findall(r"^\| ([^|]*) \|", text_of(name), flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_key_of_a_suite_and_every_suite_is_described():
    tables = (Suite, Variant, DeviceTable)
    keys = {key for table in tables for key in table.model_fields}
    assert keys | set(suite_names()) - {"paper"} <= named_in_tables("docs/suites.md")


def test_every_command_and_outcome_is_described():
    described = {word.split()[1] for word in named_in_tables("docs/measuring.md") if " " in word}
    assert described == set(COMMANDS)
    assert {outcome.value for outcome in Outcome} <= named_in_tables("docs/measuring.md")


def test_every_device_preset_and_implementation_is_named():
    for name, words in (
        ("docs/predicting.md", DEVICE_PROFILES),
        ("docs/techniques.md", PRESETS),
        ("docs/suites.md", get_args(Variant.model_fields["implementation"].annotation)),
    ):
        assert [word for word in words if f"`{word}`" not in text_of(name)] == []


# The figures are those of the runs


@pytest.mark.parametrize(
    ("name", "title", "pattern"),
    [
        ("README.md", "What it prints", "seq-scaling-*"),
        ("docs/peers.md", "Measured here", "peers-*"),
    ],
)
def test_tables_are_what_the_reference_runs_print(name, title, pattern):
    printed: set[str] = set()
    for folder in REFERENCE.glob(pattern):
        run = load_run(folder)
        baseline = None if run.info is None else run.info.suite.baseline_variant
        printed |= rows(export_markdown(run.records, "summary", baseline))
    shown = rows(section(name, title))
    assert shown
    assert shown <= printed


def test_notes_under_the_first_table_are_what_the_reference_run_prints():
    (folder,) = REFERENCE.glob("seq-scaling-*")
    printed = export_markdown(load_run(folder).records, "summary", None).splitlines()
    shown = re.findall(
        r"^(?:Peak|Throughput|Time limit|AMD EPYC).*\.$",
        section("README.md", "What it prints"),
        re.MULTILINE,
    )
    assert len(shown) == 4
    assert set(shown) <= set(printed)


def test_the_suite_that_is_shown_is_one(tmp_path):
    text = text_of("docs/suites.md").split("```toml\nname = ", 1)[1].split("```", 1)[0]
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
    shown = re.findall(r"-?\d+\.\d\d \[[^]]*\]", text_of("docs/claims.md"))
    assert shown
    assert [figure for figure in shown if figure not in text] == []
    assert (text.count("| supported |"), len(CLAIMS)) == (9, 13), "the README says nine of thirteen"
