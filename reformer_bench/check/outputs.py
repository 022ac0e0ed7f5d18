"""A comparison as text for other programs: Markdown, JUnit, GitHub's annotations, JSON."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from reformer_bench.check.compare import CaseComparison, Comparison, Status
from reformer_bench.check.table import cells, deciding
from reformer_bench.check.words import STATUS_WORDS, case_name, message, notes, summary

_BAD = frozenset(
    {
        Status.REGRESSION,
        Status.NOW_OUT_OF_MEMORY,
        Status.NOT_COMPARABLE,
        Status.MISSING,
        Status.NOW_FAILS,
    }
)
_NOT_COMPARED = frozenset({Status.NEW, Status.NOW_MEASURED, Status.NOT_MEASURED})
_HEADER = "| case | figure | old | new | change | tolerance | |\n|---|---|---:|---:|---:|---:|---|"


def check_markdown(comparison: Comparison) -> str:
    """Write a comment for a pull request: what matters, worst first; the rest is folded away."""
    told = [c for c in comparison.worst_first if c.status is not Status.OK]
    rest = [c for c in comparison.worst_first if c.status is Status.OK]
    failed = any(found.status in _BAD for found in comparison.cases)
    parts = [f"### {'❌' if failed else '✅'} Memory: {summary(comparison)}"]
    if told:
        parts += [_rows(told), "\n".join(f"- {_text(message(found))}" for found in told)]
    if rest:
        words = f"<summary>{len(rest)} unchanged</summary>"
        parts.append(f"<details>{words}\n\n{_rows(rest)}\n\n</details>")
    parts += notes(comparison)
    return "\n\n".join(parts) + "\n"


def check_junit(comparison: Comparison) -> str:
    """Write a test case for every case, with a failure for each that isn't as it was."""
    suite = ElementTree.Element("testsuite", name="reformer-bench check")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for found in comparison.cases:
        case = found.case
        name = f"{case.variant}[{case.workload}-{case.length}x{case.batch}]"
        element = ElementTree.SubElement(suite, "testcase", classname=case.suite, name=name)
        kind = _junit_kind(found.status)
        if kind is not None:
            counts[kind] += 1
            words = message(found)
            ElementTree.SubElement(element, kind, message=words, type=found.status).text = words
    suite.set("tests", str(len(comparison.cases)))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def check_github(comparison: Comparison) -> str:
    """Write workflow commands, which GitHub Actions shows as annotations; the last line is a
    notice.
    """
    lines = []
    for found in comparison.worst_first:
        if found.status is Status.OK:
            continue
        level = "error" if found.status in _BAD else "notice"
        title = f"{STATUS_WORDS[found.status]}: {case_name(found.case)}"
        lines.append(f"::{level} title={_property(title)}::{_data(message(found))}")
    return "\n".join([*lines, f"::notice title=Memory::{_data(summary(comparison))}"]) + "\n"


def check_json(comparison: Comparison) -> str:
    """Write everything as JSON, in bytes and milliseconds."""
    data = {
        "summary": {
            status.value: len(comparison.having(status))
            for status in Status
            if comparison.having(status)
        },
        "notes": notes(comparison),
        "cases": [_case(found) for found in comparison.worst_first],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _case(found: CaseComparison) -> dict[str, Any]:
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
                "metric": change.figure.metric.value,
                "step": change.figure.step,
                "phase": change.figure.phase,
                "unit": change.figure.unit,
                "old": change.old,
                "new": change.new,
                "share": change.share,
                "tolerance_share": change.tolerance.share,
                "tolerance_bytes": change.tolerance.at_least_bytes,
                "gate": change.is_gated,
                "verdict": change.verdict.value,
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
        "differs": [{"field": d.field, "old": d.old, "new": d.new} for d in found.differs],
    }


def _rows(found: list[CaseComparison]) -> str:
    lines = [_HEADER]
    for case in found:
        name, status = case_name(case.case), STATUS_WORDS[case.status]
        rows = [cells(change) for change in deciding(case)] or [("", "–", "–", "–", "–")]
        for number, row in enumerate(rows):
            ends = (name, status) if number == 0 else ("", "")
            lines.append("| " + " | ".join(map(_text, (ends[0], *row, ends[1]))) + " |")
    return "\n".join(lines)


def _text(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _junit_kind(status: Status) -> str | None:
    if status in (Status.REGRESSION, Status.NOW_OUT_OF_MEMORY):
        return "failure"
    if status in _BAD:
        return "error"
    return "skipped" if status in _NOT_COMPARED else None


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
