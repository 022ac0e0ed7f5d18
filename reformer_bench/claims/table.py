"""The table of claims: verdict, figures and intervals, for a terminal or other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich.text import Text

from reformer_bench.claims.judge import Finding, Outcome, Verdict, figure_text
from reformer_bench.claims.paper import bounds_text
from reformer_bench.report.fitted import Column, FittedTable, Row

_FINDING_WIDTH = 24
_STYLES = {
    Outcome.SUPPORTED: "green",
    Outcome.REFUTED: "bold red",
    Outcome.NOT_MEASURABLE: "dim",
}
_HOLDS = {True: "holds", False: "fails", None: "undecided"}


def claims_table(verdicts: Sequence[Verdict]) -> FittedTable:
    """Make a block for each claim: what was expected of each figure, what was found, and whether
    that holds.
    """
    columns = (
        Column("claim"),
        Column("finding", least=_FINDING_WIDTH),
        Column("expected"),
        Column("found, 90% interval"),
        Column("verdict"),
    )
    rows = []
    for verdict in verdicts:
        found = [_cells(finding) for finding in verdict.findings]
        if not any(finding.figure is not None for finding in verdict.findings):
            found = [(verdict.sentence, "–", "–", "–")]
        rows += [Row((_head(verdict), *cells)) for cells in found]
    return FittedTable(columns, rows, headed=True)


def _head(verdict: Verdict) -> Text:
    """Return the claim's name, what became of it as a whole, and where the paper makes it."""
    outcome = verdict.outcome
    return Text.assemble(
        verdict.claim.id,
        ": ",
        (outcome.value, _STYLES[outcome]),
        (f" ({verdict.claim.source})", "not bold dim"),
    )


def remarks_text(remarks: Sequence[str]) -> str:
    """Write the remarks beside the claims, a line for each; empty where there are none."""
    lines = ["What the paper did not compare:", *(f"• {remark}" for remark in remarks)]
    return "\n".join(lines) if remarks else ""


def claims_markdown(verdicts: Sequence[Verdict], remarks: Sequence[str] = ()) -> str:
    """Write a row for each claim, with its evidence in one sentence, and then the remarks as a
    list.
    """
    lines = ["| claim | verdict | source | evidence |", "|---|---|---|---|"]
    for verdict in verdicts:
        sentence = verdict.sentence.replace("|", "\\|")
        cells = (verdict.claim.id, verdict.outcome.value, verdict.claim.source, sentence)
        lines.append(f"| {' | '.join(cells)} |")
    if remarks:
        lines += ["", "What the paper did not compare:", "", *(f"- {remark}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def claims_json(verdicts: Sequence[Verdict], remarks: Sequence[str] = ()) -> str:
    """Write ``claims``, an object each with every point of every figure (open bounds are null), and
    ``remarks``, which are sentences.
    """
    claims = [_as_data(verdict) for verdict in verdicts]
    return json.dumps({"claims": claims, "remarks": list(remarks)}, indent=2, ensure_ascii=False)


def _cells(finding: Finding) -> tuple[str, str, str, str]:
    name = finding.expectation.text
    # Of what holds, the notes are in the other formats.
    if finding.note and not finding.holds:
        name += f" ({finding.note})"
    expected, found = bounds_text(finding.expectation), figure_text(finding)
    return name, expected, found, _HOLDS[finding.holds]


def _as_data(verdict: Verdict) -> dict[str, object]:
    claim = verdict.claim
    return {
        "id": claim.id,
        "verdict": verdict.outcome.value,
        "statement": claim.statement,
        "source": claim.source,
        "suites": list(claim.suites),
        "quantity": claim.quantity,
        "against": claim.against,
        "sentence": verdict.sentence,
        "findings": [_finding_data(finding) for finding in verdict.findings],
    }


def _finding_data(finding: Finding) -> dict[str, object]:
    expected = finding.expectation
    return {
        "what": expected.text,
        "unit": expected.unit,
        "low": expected.low if math.isfinite(expected.low) else None,
        "high": expected.high if math.isfinite(expected.high) else None,
        "holds": finding.holds,
        "figure": finding.figure,
        "lower": finding.lower,
        "upper": finding.upper,
        "basis": finding.basis,
        "points": [[point.x, point.y] for point in finding.points],
        "note": finding.note,
    }
