"""The table of claims: verdict, figures and intervals, for a terminal or other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from reformer_bench.analysis.claims import bounds_text
from reformer_bench.analysis.judging import Finding, Outcome, Verdict, figure_text

_CLAIM_WIDTH = 24
_STYLES = {
    Outcome.SUPPORTED: "green",
    Outcome.REFUTED: "bold red",
    Outcome.NOT_MEASURABLE: "dim",
}


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One block of rows a claim: what was expected of each figure, and what was found."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", max_width=_CLAIM_WIDTH)
    table.add_column("finding")
    table.add_column("expected", no_wrap=True)
    table.add_column("found, 90% interval", no_wrap=True)
    for verdict in verdicts:
        rows = [_cells(finding) for finding in verdict.findings]
        if not any(finding.figure is not None for finding in verdict.findings):
            rows = [(verdict.sentence, "–", "–")]
        for left, row in zip(_beside(_head(verdict), len(rows)), rows, strict=True):
            table.add_row(left, *row)
        table.add_section()
    return table


def _head(verdict: Verdict) -> list[Text]:
    """The claim's name, what became of it, and where it is made."""
    outcome = verdict.outcome
    return [
        Text(verdict.claim.id, style="bold"),
        Text(outcome.value, style=_STYLES[outcome]),
        Text(verdict.claim.source, style="dim"),
    ]


def _beside(lines: list[Text], n_rows: int) -> list[Text]:
    """Lines spread over a number of rows, what is left of them in the last."""
    if n_rows >= len(lines):
        return lines + [Text()] * (n_rows - len(lines))
    return [*lines[: n_rows - 1], Text("\n").join(lines[n_rows - 1 :])]


def remarks_text(remarks: Sequence[str]) -> str:
    """What is to be said beside the claims, a line each; empty where nothing is."""
    lines = ["What the paper did not compare:", *(f"• {remark}" for remark in remarks)]
    return "\n".join(lines) if remarks else ""


def claims_markdown(verdicts: Sequence[Verdict], remarks: Sequence[str] = ()) -> str:
    """A row a claim, its evidence in one sentence; then the remarks as a list."""
    lines = ["| claim | verdict | source | evidence |", "|---|---|---|---|"]
    for verdict in verdicts:
        sentence = verdict.sentence.replace("|", "\\|")
        cells = (verdict.claim.id, verdict.outcome.value, verdict.claim.source, sentence)
        lines.append(f"| {' | '.join(cells)} |")
    if remarks:
        lines += ["", "What the paper did not compare:", "", *(f"- {remark}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def claims_json(verdicts: Sequence[Verdict], remarks: Sequence[str] = ()) -> str:
    """``claims``: an object each, with every point each figure rests on, open bounds null; and
    ``remarks``: sentences."""
    claims = [_as_data(verdict) for verdict in verdicts]
    return json.dumps({"claims": claims, "remarks": list(remarks)}, indent=2, ensure_ascii=False)


def _cells(finding: Finding) -> tuple[str, str, str]:
    name = finding.expectation.text
    # Of what holds, the notes are in the other formats.
    if finding.note and not finding.holds:
        name += f" ({'undecided: ' if finding.holds is None else ''}{finding.note})"
    return name, bounds_text(finding.expectation), figure_text(finding)


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
