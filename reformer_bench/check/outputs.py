"""A comparison as a table in a terminal, Markdown, JUnit, GitHub's annotations or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.text import Text

from reformer_bench.check.compare import CaseComparison, Change, Comparison, Status
from reformer_bench.check.words import (
    amount,
    case_name,
    figure_name,
    message,
    messages,
    notes,
    share_words,
    status_words,
    summary,
)
from reformer_bench.report.export import markdown_table
from reformer_bench.report.fitted import Column, FittedTable, Row

_JUNIT = {
    Status.REGRESSION: "failure",
    Status.NOW_OUT_OF_MEMORY: "failure",
    Status.NOT_COMPARABLE: "error",
    Status.MISSING: "error",
    Status.NOW_FAILS: "error",
    Status.NEW: "skipped",
    Status.NOW_MEASURED: "skipped",
    Status.NOT_MEASURED: "skipped",
}
"""What is said of cases in JUnit's words; nothing of those that are as good as they were."""
_BAD = frozenset(status for status, kind in _JUNIT.items() if kind != "skipped")
_FIGURES = ("figure", "old", "new", "change", "tolerance")
_MOST_FIGURES = 4


def _style(status: Status) -> str:
    if status in _BAD:
        return "red"
    if status in _JUNIT:
        return "yellow"
    return "dim" if status is Status.OK else "green"


def _rows(found: CaseComparison) -> list[tuple[str, ...]]:
    """Return the figures to show of a case, as text: those that grew or shrank too much, or else
    the whole peaks.
    """
    peaks = [c for c in found.changes if c.phase is None and c.metric.is_exact]
    shown: Sequence[Change] = found.regressions or found.improvements or peaks
    return [
        (
            figure_name(change),
            amount(change.metric, change.old),
            amount(change.metric, change.new),
            share_words(change) if change.new != change.old else "=",
            str(change.tolerance),
        )
        for change in shown[:_MOST_FIGURES]
    ]


def check_table(comparison: Comparison) -> RenderableType:
    """Say what grew, worst first, and why other cases have no figures; then come the figures in a
    table, and the count of cases.
    """
    columns = [Column(""), Column("case"), Column("figure")]
    columns += [Column(header, right=True) for header in _FIGURES[1:]]
    rows = [
        Row((status_words(found.status), case_name(found.case), *cells), _style(found.status))
        for found in comparison.worst_first
        for cells in _rows(found)
    ]
    lines = [Text(line, style=_style(status)) for status, line in messages(comparison)]
    parts: list[RenderableType] = [*lines]
    if rows:
        parts += [*([""] if parts else []), FittedTable(columns, rows, heads=2, once=True)]
    parts += ["", *(Text(note, style="dim") for note in notes(comparison))]
    return Group(*parts, Text(summary(comparison), "bold"))


def check_markdown(comparison: Comparison) -> str:
    """Write a comment for a pull request: what matters, worst first; the rest is folded away."""
    told = [found for found in comparison.worst_first if found.status is not Status.OK]
    rest = [found for found in comparison.worst_first if found.status is Status.OK]
    mark = "❌" if comparison.having(*_BAD) else "✅"
    parts = [f"### {mark} Memory: {summary(comparison)}"]
    if told:
        lines = (f"- {_in_markdown(message(found))}" for found in told)
        parts += [_markdown(told), "\n".join(lines).replace("|", "\\|")]
    if rest:
        words = f"<summary>{len(rest)} unchanged</summary>"
        parts.append(f"<details>{words}\n\n{_markdown(rest)}\n\n</details>")
    return "\n\n".join([*parts, *notes(comparison)]) + "\n"


def _markdown(cases: Sequence[CaseComparison]) -> str:
    """Write a table of the cases' figures, with the name and the status in a case's first line."""
    rows = []
    for found in cases:
        name, status = case_name(found.case), status_words(found.status)
        for cells in _rows(found) or [("", "–", "–", "–", "–")]:
            rows.append(tuple(map(_in_markdown, (name, *cells, status))))
            name = status = ""
    rule = "|---|---|---:|---:|---:|---:|---|"
    return "\n".join(markdown_table(("case", *_FIGURES, ""), rows, rule=rule))


def _in_markdown(words: str) -> str:
    return words.replace("<", "&lt;").replace("\n", " ")


def check_junit(comparison: Comparison) -> str:
    """Write a test case for every case, with a failure for each that isn't as it was."""
    suite = ElementTree.Element("testsuite", name="reformer-bench check")
    kinds = []
    for found in comparison.cases:
        case = found.case
        name = f"{case.variant}[{case.workload}-{case.length}x{case.batch}]"
        element = ElementTree.SubElement(suite, "testcase", classname=case.suite, name=name)
        kind = _JUNIT.get(found.status)
        if kind is not None:
            kinds.append(kind)
            words = message(found)
            ElementTree.SubElement(element, kind, message=words, type=found.status).text = words
    suite.set("tests", str(len(comparison.cases)))
    suite.set("failures", str(kinds.count("failure")))
    suite.set("errors", str(kinds.count("error")))
    suite.set("skipped", str(kinds.count("skipped")))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def check_github(comparison: Comparison) -> str:
    """Write workflow commands, which GitHub Actions shows as annotations; the last line is a
    notice.
    """
    lines = []
    for found in comparison.worst_first:
        if found.status is not Status.OK:
            level = "error" if found.status in _BAD else "notice"
            title = _escaped(f"{status_words(found.status)}: {case_name(found.case)}")
            title = title.replace(":", "%3A").replace(",", "%2C")
            lines.append(f"::{level} title={title}::{_escaped(message(found))}")
    return "\n".join([*lines, f"::notice title=Memory::{_escaped(summary(comparison))}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def check_json(comparison: Comparison) -> str:
    """Write everything as JSON, in bytes and milliseconds."""
    counts = {status.value: len(comparison.having(status)) for status in Status}
    data = {
        "summary": {status: count for status, count in counts.items() if count},
        "notes": notes(comparison),
        "cases": [_case_data(found) for found in comparison.worst_first],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _case_data(found: CaseComparison) -> dict[str, Any]:
    case = found.case
    return {
        "case_id": case.id,
        "suite": case.suite,
        "variant": case.variant,
        "workload": case.workload,
        "batch": case.batch,
        "length": case.length,
        "status": found.status.value,
        "message": message(found),
        "changes": [
            {
                "metric": change.metric.value,
                "step": change.step,
                "phase": change.phase,
                "unit": change.metric.unit,
                "old": change.old,
                "new": change.new,
                "share": change.share,
                "tolerance_share": change.tolerance.share,
                "tolerance_bytes": change.tolerance.at_least_bytes,
                "gate": change.tolerance.gate,
                "verdict": change.kind.value,
                "p_value": change.p_value,
            }
            for change in found.changes
        ],
        "growths": [
            {
                "kind": growth.kind,
                "place": growth.place,
                "old_bytes": growth.old_bytes,
                "new_bytes": growth.new_bytes,
            }
            for growth in (*found.growths, *found.place_growths)
        ],
        "differs": [asdict(difference) for difference in found.differs],
    }
