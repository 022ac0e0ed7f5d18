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

_STYLES = {
    Outcome.SUPPORTED: "green",
    Outcome.REFUTED: "bold red",
    Outcome.NOT_MEASURABLE: "dim",
}


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One block of rows a claim: what was expected of each figure, and what was found."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", no_wrap=True, style="bold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("source", max_width=18)
    table.add_column("finding")
    table.add_column("expected", no_wrap=True)
    table.add_column("found, 90% interval", no_wrap=True)
    for verdict in verdicts:
        outcome = Text(verdict.outcome.value, style=_STYLES[verdict.outcome])
        first = (verdict.claim.id, outcome, verdict.claim.source)
        if not any(finding.figure is not None for finding in verdict.findings):
            table.add_row(*first, verdict.sentence, "–", "–")
            continue
        for number, finding in enumerate(verdict.findings):
            row = first if number == 0 else ("", Text(), "")
            table.add_row(*row, *_cells(finding))
    return table


def remarks_text(remarks: Sequence[str]) -> str:
    """What is to be said beside the claims, a line each; empty where nothing is."""
    return (
        "\n".join(("Beside the paper:", *(f"• {remark}" for remark in remarks))) if remarks else ""
    )


def claims_markdown(verdicts: Sequence[Verdict], remarks: Sequence[str] = ()) -> str:
    """A row a claim, its evidence in one sentence; then the remarks as a list."""
    lines = ["| claim | verdict | source | evidence |", "|---|---|---|---|"]
    for verdict in verdicts:
        sentence = verdict.sentence.replace("|", "\\|")
        cells = (verdict.claim.id, verdict.outcome.value, verdict.claim.source, sentence)
        lines.append(f"| {' | '.join(cells)} |")
    if remarks:
        lines += ["", "Beside the paper:", "", *(f"- {remark}" for remark in remarks)]
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
