"""One case in detail: every peak under the name of what measured it, every phase, every time."""

from __future__ import annotations

from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reformer_bench.analysis.frames import case_row
from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.report.words import WORKLOADS, outcome_words, percent, rate_figure
from reformer_bench.spec.record import PHASES, Outcome, Record
from reformer_bench.spec.units import format_bytes, format_tokens

_STEP_COLUMNS = ("cold", "warm")


def case_block(record: Record) -> RenderableType:
    """Show a title, the figures of the whole case, and a table of its phases."""
    row = case_row(record)
    parts: list[RenderableType] = [_title(record)]
    if record.message:
        parts.append(Text(f"  {record.message}", style="yellow"))
    facts = case_facts(record)
    if facts:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", min_width=10)
        table.add_column()
        for name, value in facts.items():
            table.add_row(f"  {name}", Text(value))
        parts.append(table)
    if row["cold_ms"] is not None or row["peak_bytes"] is not None:
        parts.append(_phases(row))
    return Stack(*parts)


def case_facts(record: Record) -> dict[str, str]:
    """Return the figures of the whole case as text, by name; what was not measured is left out."""
    row = case_row(record)
    facts = {
        "allocated": format_bytes(row["peak_bytes"]) if row["peak_bytes"] is not None else None,
        "reserved": _bytes(row["reserved_peak_bytes"]),
        "NVML": _nvml(row),
        "resident": _host(row),
        "predicted": _bytes(row["predicted_peak_bytes"]),
        "warm step": _step(row),
        "throughput": _rate(row),
        "FLOPs": _flops(row),
        "cold step": _milliseconds(row["cold_ms"]),
        "build": _milliseconds(row["build_ms"]),
        "overhead": _overhead(row["overhead_ms"]),
        "settings": ", ".join(f"{k} = {v}" for k, v in sorted(record.settings.items())) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _title(record: Record) -> Text:
    case = record.case
    words = "finished" if record.outcome is Outcome.OK else outcome_words(record)
    if record.outcome is Outcome.SKIPPED:
        words = "skipped"
    text = Text(f"{case.variant} · {format_tokens(case.length)} × {case.batch}", style="bold")
    text.append(f" · {WORKLOADS[case.workload]} · {case.device} · {case.id} · ", style="default")
    good = record.outcome in (Outcome.OK, Outcome.SKIPPED)
    return text.append(words, style="green" if good else "red")


def _phases(row: dict[str, Any]) -> FittedTable:
    reserved = row["reserved_peak_bytes"] is not None
    kinds = ("allocated", "reserved") if reserved else ("allocated",)
    headers = [f"{step}\n{kind}" for step in _STEP_COLUMNS for kind in kinds]
    headers += ["cold\ntime", "warm\nmedian", "warm\nIQR"]
    rows = []
    for phase in PHASES:
        sizes = [
            format_bytes(row[f"{step}_{phase}_{kind}_bytes"])
            for step in _STEP_COLUMNS
            for kind in kinds
        ]
        cold = row["build_ms"] if phase == "build" else row[f"cold_{phase}_ms"]
        warm = [row.get(f"{phase}_{name}_ms") for name in ("median", "iqr")]
        cells = [*sizes, *(_milliseconds(value) or "–" for value in (cold, *warm))]
        if any(cell != "–" for cell in cells):
            rows.append(Row((f"  {phase}", *cells)))
    columns = [Column("  phase"), *(Column(header, right=True) for header in headers)]
    return FittedTable(columns, rows)


def _overhead(milliseconds: float | None) -> str | None:
    taken = _milliseconds(milliseconds)
    return None if taken is None else f"{taken} that reformer-bench took to start and stop the case"


def _bytes(count: int | None) -> str | None:
    return None if count is None else format_bytes(count)


def _milliseconds(value: float | None) -> str | None:
    """Write milliseconds, or seconds from ten on, in three figures."""
    if value is None:
        return None
    if value < 10_000:
        return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"
    return f"{value / 1e3:.3g} s" if value < 1e6 else f"{value / 1e3:,.0f} s"


def _nvml(row: dict[str, Any]) -> str | None:
    if row["nvml_device_peak_bytes"] is None:
        return None
    before = format_bytes(row["nvml_device_before_bytes"])
    words = f"device {format_bytes(row['nvml_device_peak_bytes'])} ({before} before the case)"
    if row["nvml_process_peak_bytes"] is not None:
        source = "" if row["nvml_process_source"] == "process" else " (as the device's growth)"
        words += f", process {format_bytes(row['nvml_process_peak_bytes'])}{source}"
    if row["energy_mj"] is not None:
        words += f", {row['energy_mj'] / 1e3:,.3g} J"
    if row["mean_power_mw"] is not None:
        words += f", {row['mean_power_mw'] / 1e3:.3g} W mean"
    return words


def _host(row: dict[str, Any]) -> str | None:
    if row["host_peak_bytes"] is None:
        return None
    before = format_bytes(row["host_before_bytes"])
    return f"{format_bytes(row['host_peak_bytes'])} ({before} before the case)"


def _step(row: dict[str, Any]) -> str | None:
    if row["median_ms"] is None:
        return None
    n = row["n_samples"]
    words = f"{_milliseconds(row['median_ms'])} median of {n} sample{'' if n == 1 else 's'}"
    if row["iqr_ms"] is not None:
        share = percent(row["relative_iqr"])
        words += f", interquartile range {_milliseconds(row['iqr_ms'])} ({share})"
    n_warmup = row["n_warmup"]
    return f"{words}, after {n_warmup} warm-up step{'' if n_warmup == 1 else 's'}"


def _rate(row: dict[str, Any]) -> str | None:
    rate = row["tokens_per_second"]
    return None if rate is None else f"{rate_figure(rate)} thousand tokens per second"


def _flops(row: dict[str, Any]) -> str | None:
    if row["flops"] is None:
        return None
    words = f"{row['flops'] / 1e9:,.4g} GFLOP a step"
    if row["matmul_share"] is not None:
        words += f", {percent(row['matmul_share'])} of the speed of one large matrix product"
    return words
