"""The tables of a run as text for other programs: Markdown, CSV, JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reformer_bench.report.frames import (
    BREAKDOWN,
    CaseRow,
    breakdown_bytes,
    breakdown_frame,
    case_frame,
)
from reformer_bench.report.grid import Cell, figure_grids, ratio_grids
from reformer_bench.report.groups import group_records
from reformer_bench.report.tables import case_facts, group_notes, heading
from reformer_bench.report.words import outcome_words, percent
from reformer_bench.schema.quartiles import quartiles
from reformer_bench.schema.record import Environment, Record
from reformer_bench.schema.units import format_bytes, format_tokens

if TYPE_CHECKING:
    import pandas as pd

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

_CASE_HEAD = ("workload", "variant", "length × batch")


def export_csv(records: Iterable[Record], table: Table) -> str:
    """Write one line per case under a header; what was not measured is empty."""
    return str(_frame(records, table).to_csv(index=False))


def export_json(records: Iterable[Record], table: Table) -> str:
    """Write a list of objects, one per case; what was not measured is null."""
    # Through pandas' own writer, which turns its missing values into null.
    rows = json.loads(_frame(records, table).to_json(orient="records", double_precision=15))
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _frame(records: Iterable[Record], table: Table) -> pd.DataFrame:
    if table == "breakdown":
        return breakdown_frame(records)
    frame = case_frame(records)
    return frame if table == "details" or frame.empty else frame[_SUMMARY]


def export_markdown(records: Iterable[Record], table: Table, baseline: str | None = None) -> str:
    """Write Markdown tables, with the notes as lines below them."""
    records = list(records)
    if table == "details":
        return _details(records)
    if table == "breakdown":
        return _breakdown(records)
    parts = []
    for group in group_records(records):
        parts.append(f"**{heading(group)}**")
        for grid in (*figure_grids(group), *ratio_grids(group, baseline)):
            rows = [[name, *map(_cell_text, cells)] for name, cells in grid.rows]
            lines = markdown_table([grid.corner, *grid.variants], rows)
            caption = f"{grid.quantity[0].upper()}{grid.quantity[1:]}:"
            parts.append("\n".join([caption, "", *lines]))
        parts += group_notes(group)
    return "\n\n".join(parts) + "\n"


def _cell_text(cell: Cell) -> str:
    text = ", ".join(cell.lines)
    return f"**{text}**" if cell.is_best else text


def _details(records: Sequence[Record]) -> str:
    facts = [case_facts(record) for record in records]
    names = list(dict.fromkeys(name for found in facts for name in found))
    rows = []
    for record, found in zip(records, facts, strict=True):
        outcome = outcome_words(record) + (f": {record.message}" if record.message else "")
        rows.append([*_case_cells(record), outcome, *(found.get(name, "–") for name in names)])
    return "\n".join(markdown_table([*_CASE_HEAD, "outcome", *names], rows)) + "\n"


def _breakdown(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        if record.breakdown is not None:
            total = record.breakdown.total_bytes
            sizes = [breakdown_bytes(record.breakdown, kind) for kind in BREAKDOWN]
            cells = [f"{format_bytes(size)} ({percent(size / total)})" for size in sizes]
            rows.append([*_case_cells(record), format_bytes(total), *cells])
    return "\n".join(markdown_table([*_CASE_HEAD, "peak", *BREAKDOWN], rows)) + "\n"


def _case_cells(record: Record) -> list[str]:
    case = record.case
    return [case.workload, case.variant, f"{format_tokens(case.length)} × {case.batch}"]


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, rule: str | None = None
) -> list[str]:
    """Write the lines of a Markdown table.

    Args:
        head: The names of the columns.
        rows: The cells of each row; ``|`` and line breaks in them are taken care of.
        rule: The line under the head, where columns are not all aligned to the right.

    """
    rule = "| " + " | ".join(["---:"] * len(head)) + " |" if rule is None else rule
    first, *others = (f"| {' | '.join(map(_escaped, line))} |" for line in (head, *rows))
    # A column without a name takes one space.
    return [first.replace("|  |", "| |"), rule, *others]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def export_pytest_benchmark(records: Iterable[Record], run_name: str) -> str:
    """Write a benchmark for each record with timed steps, in seconds, with its memory as
    extra_info.

    Raises ValueError where no record has any.
    """
    timed = [record for record in records if record.step_samples_ms]
    if not timed:
        raise ValueError("no case of the run has timed steps")
    environment = timed[0].environment
    data = {
        "machine_info": _machine(environment),
        "commit_info": {
            "id": environment.commit or "unknown",
            "time": None,
            "author_time": None,
            "dirty": (environment.commit or "").endswith("-dirty"),
            "project": run_name,
            "branch": "unknown",
        },
        "benchmarks": [_benchmark(record) for record in timed],
        "datetime": timed[0].started_at,
        "version": "5.0.0",
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _machine(environment: Environment) -> dict[str, Any]:
    return {
        "node": environment.hostname_hash,
        "processor": environment.device_name,
        "machine": environment.device_kind,
        "python_compiler": "",
        "python_implementation": "CPython",
        "python_implementation_version": environment.python_version,
        "python_version": environment.python_version,
        "python_build": ["", ""],
        "release": environment.os,
        "system": environment.os.split("-")[0],
        "cpu": {"brand_raw": environment.cpu_model, "count": environment.cpu_count},
    }


def _benchmark(record: Record) -> dict[str, Any]:
    case = record.case
    name = f"{case.variant}[{case.workload}-{case.length}x{case.batch}]"
    memory = {
        name: value
        for name, value in CaseRow(record).columns().items()
        if name.endswith("_bytes") and value is not None
    }
    return {
        "group": f"{case.workload}-{case.length}x{case.batch}",
        "name": name,
        "fullname": f"{case.suite}::{name}",
        "params": {"length": case.length, "batch": case.batch},
        "param": f"{case.length}x{case.batch}",
        "extra_info": {
            "case_id": record.case_id,
            **memory,
            # What --memory-compare asks of two files before it compares bytes.
            "torch_version": record.environment.torch_version,
            "torch_threads": record.environment.torch_threads,
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _stats([milliseconds / 1e3 for milliseconds in record.step_samples_ms]),
    }


def _stats(seconds: list[float]) -> dict[str, Any]:
    found = quartiles(seconds)
    assert found is not None
    mean = statistics.fmean(seconds)
    deviation = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    spread = found.upper - found.lower
    low, high = found.lower - 1.5 * spread, found.upper + 1.5 * spread
    outside = sum(not low <= one <= high for one in seconds)
    far = sum(abs(one - mean) > deviation for one in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": found.median,
        "iqr": spread,
        "q1": found.lower,
        "q3": found.upper,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": min(one for one in seconds if one >= low),
        "hd15iqr": max(one for one in seconds if one <= high),
        "ops": 1 / mean,
        "total": sum(seconds),
        "data": seconds,
        "iterations": 1,
    }
