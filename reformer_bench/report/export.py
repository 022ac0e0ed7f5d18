"""The tables of a run as text for other programs: Markdown, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd

from reformer_bench.analysis.frames import BREAKDOWN, breakdown_frame, case_frame
from reformer_bench.analysis.groups import group_records
from reformer_bench.report.details import case_facts
from reformer_bench.report.grid import Cell, Grid, figure_grids
from reformer_bench.report.ratios import ratio_grids
from reformer_bench.report.tables import group_notes, heading
from reformer_bench.report.words import outcome_words, percent
from reformer_bench.spec.record import Record
from reformer_bench.spec.units import format_bytes, format_tokens

Table = Literal["summary", "details", "breakdown"]

_SUMMARY = [
    "case_id",
    "workload",
    "variant",
    "batch",
    "length",
    "device",
    "outcome",
    "peak_bytes",
    "peak_source",
    "predicted_peak_bytes",
    "n_samples",
    "median_ms",
    "iqr_ms",
    "tokens_per_second",
    "message",
]


def export_csv(records: Iterable[Record], table: Table) -> str:
    """Write one line per case under a header; what was not measured is empty."""
    return str(_frame(records, table).to_csv(index=False))


def export_json(records: Iterable[Record], table: Table) -> str:
    """Write a list of objects, one per case; what was not measured is null."""
    # Through pandas' own writer, which turns its missing values into null.
    rows = json.loads(_frame(records, table).to_json(orient="records", double_precision=15))
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def export_markdown(records: Iterable[Record], table: Table, baseline: str | None = None) -> str:
    """Write Markdown tables, with the notes as lines below them."""
    records = list(records)
    if table == "details":
        return _markdown_details(records)
    if table == "breakdown":
        return _markdown_breakdown(records)
    parts = []
    for group in group_records(records):
        parts.append(f"**{heading(group)}**")
        grids = [*figure_grids(group), *ratio_grids(group, baseline)]
        parts += map(_markdown_grid, grids)
        parts += group_notes(group)
    return "\n\n".join(parts) + "\n"


def _frame(records: Iterable[Record], table: Table) -> pd.DataFrame:
    if table == "breakdown":
        return breakdown_frame(records)
    frame = case_frame(records)
    return frame if table == "details" or frame.empty else frame[_SUMMARY]


def _markdown_grid(grid: Grid) -> str:
    rows = [[name, *map(_markdown_cell, cells)] for name, cells in grid.rows]
    caption = f"{grid.quantity[0].upper()}{grid.quantity[1:]}:"
    return f"{caption}\n\n{_markdown([grid.corner, *grid.variants], rows)}"


def _markdown_cell(cell: Cell) -> str:
    text = ", ".join(cell.lines)
    return f"**{text}**" if cell.is_best else text


def _markdown_details(records: Sequence[Record]) -> str:
    facts = [case_facts(record) for record in records]
    names = list(dict.fromkeys(name for found in facts for name in found))
    rows = []
    for record, found in zip(records, facts, strict=True):
        case = record.case
        outcome = outcome_words(record) + (f": {record.message}" if record.message else "")
        what = [
            case.workload,
            case.variant,
            f"{format_tokens(case.length)} × {case.batch}",
            outcome,
        ]
        rows.append([*what, *(found.get(name, "–") for name in names)])
    return _markdown(["workload", "variant", "length × batch", "outcome", *names], rows) + "\n"


def _markdown_breakdown(records: Sequence[Record]) -> str:
    rows = [
        [case["workload"], case["variant"]]
        + [f"{format_tokens(case['length'])} × {case['batch']}", format_bytes(case["total_bytes"])]
        + [
            f"{format_bytes(case[f'{part}_bytes'])} ({percent(case[f'{part}_share'])})"
            for part in BREAKDOWN
        ]
        for case in breakdown_frame(records).to_dict("records")
    ]
    return _markdown(["workload", "variant", "length × batch", "peak", *BREAKDOWN], rows) + "\n"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table with every column aligned to the right."""
    marks = ["---:"] * len(header)
    lines = [header, marks, *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
