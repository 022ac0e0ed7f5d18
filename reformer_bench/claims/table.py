"""The table of claims: verdict, figures and intervals, for a terminal or other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich.text import Text

from reformer_bench.claims.judge import Finding, Judgement, Verdict, figure_text
from reformer_bench.report.export import markdown_table
from reformer_bench.report.fitted import Column, FittedTable, Row

_STYLES = {Verdict.SUPPORTED: "green", Verdict.REFUTED: "bold red", Verdict.NOT_MEASURABLE: "dim"}
_HOLDS = {True: "holds", False: "fails", None: "undecided"}
_BEYOND = "What the paper did not compare:"


def claims_table(judgements: Sequence[Judgement]) -> FittedTable:
    """Make a block for each claim: what was expected of each figure, what was found, and whether
    that holds.
    """
    columns = (
        Column("claim"),
        Column("finding", least=24),
        Column("expected"),
        Column("found, 90% interval"),
        Column("verdict"),
    )
    rows = []
    for judged in judgements:
        head = Text.assemble(
            judged.claim.id,
            ": ",
            (judged.verdict.value, _STYLES[judged.verdict]),
            (f" ({judged.claim.source})", "not bold dim"),
        )
        if any(found.evidence.figure is not None for found in judged.findings):
            rows += [Row((head, *_cells(found))) for found in judged.findings]
        else:
            rows.append(Row((head, judged.sentence, "–", "–", "–")))
    return FittedTable(columns, rows, headed=True)


def _cells(found: Finding) -> tuple[str, str, str, str]:
    expected = found.expectation
    # Of what holds, the notes are in the other formats.
    note = f" ({found.note})" if found.note and not found.holds else ""
    return expected.text + note, str(expected.bounds), figure_text(found), _HOLDS[found.holds]


def remarks_text(remarks: Sequence[str]) -> str:
    """Write the remarks beside the claims, a line for each; empty where there are none."""
    return "\n".join([_BEYOND, *(f"• {remark}" for remark in remarks)]) if remarks else ""


def claims_markdown(judgements: Sequence[Judgement], remarks: Sequence[str] = ()) -> str:
    """Write a row for each claim, with its evidence in one sentence, and then the remarks as a
    list.
    """
    rows = [
        (judged.claim.id, judged.verdict.value, judged.claim.source, judged.sentence)
        for judged in judgements
    ]
    lines = markdown_table(
        ("claim", "verdict", "source", "evidence"), rows, rule="|---|---|---|---|"
    )
    if remarks:
        lines += ["", _BEYOND, "", *(f"- {remark}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def claims_json(judgements: Sequence[Judgement], remarks: Sequence[str] = ()) -> str:
    """Write ``claims``, an object each with every point of every figure (open bounds are null), and
    ``remarks``, which are sentences.
    """
    claims = [
        {
            "id": judged.claim.id,
            "verdict": judged.verdict.value,
            "statement": judged.claim.statement,
            "source": judged.claim.source,
            "suites": list(judged.claim.suites),
            "quantity": judged.claim.quantity,
            "against": judged.claim.against,
            "sentence": judged.sentence,
            "findings": [_finding_data(found) for found in judged.findings],
        }
        for judged in judgements
    ]
    return json.dumps({"claims": claims, "remarks": list(remarks)}, indent=2, ensure_ascii=False)


def _finding_data(found: Finding) -> dict[str, object]:
    bounds, evidence = found.expectation.bounds, found.evidence
    return {
        "what": found.expectation.text,
        "unit": bounds.unit,
        "low": bounds.low if math.isfinite(bounds.low) else None,
        "high": bounds.high if math.isfinite(bounds.high) else None,
        "holds": found.holds,
        "figure": evidence.figure,
        "lower": evidence.lower,
        "upper": evidence.upper,
        "basis": evidence.basis,
        "points": [[point.x, point.y] for point in evidence.points],
        "note": found.note,
    }
