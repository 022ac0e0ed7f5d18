"""Tables for the terminal: a run in summary, its cases in detail, and what its peaks are
made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.report.frames import BREAKDOWN, Group, breakdown_frame, case_row, group_records
from reformer_bench.report.grid import (
    Cell,
    Grid,
    figure_grids,
    is_timed,
    mismatch_notes,
    ratio_grids,
)
from reformer_bench.report.notes import (
    date_words,
    device_words,
    environments,
    memory_note,
    model_words,
    stop_note,
    throughput_note,
    versions_words,
)
from reformer_bench.report.words import (
    WORKLOADS,
    outcome_words,
    percent,
    rate_figure,
    setting_words,
    split_name,
)
from reformer_bench.schema.record import PHASES, Outcome, Record
from reformer_bench.schema.units import counted, format_bytes, format_tokens

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


_NAME_WIDTH = 12


def summary_table(records: Iterable[Record], baseline: str | None = None) -> RenderableType:
    """Show peak memory and throughput, lengths down and variants across, for each group
    of records.

    The best figure of a row is bold; a case that did not finish says why. Variants that don't fit
    the terminal side by side go into a further block below. With a baseline variant, both figures
    are also shown as multiples of its own.
    """
    parts: list[RenderableType] = []
    for group in group_records(records):
        grids = [*figure_grids(group), *ratio_grids(group, baseline)]
        parts += [_tables_title(group), *map(_GridTable, grids)]
        parts += [Text(line, style="dim") for line in group_notes(group)]
        parts.append("")
    return Stack(*(parts[:-1] or ["no records"]))


def detail_table(records: Iterable[Record]) -> RenderableType:
    """Show everything measured, a block for each case: peaks by what measured them,
    phases, times.
    """
    blocks: list[RenderableType] = []
    for record in records:
        blocks += [case_block(record), ""]
    return Stack(*(blocks[:-1] or ["no records"]))


def breakdown_table(records: Iterable[Record]) -> RenderableType:
    """Show, for each measured peak, what the bytes are, and their shares."""
    frame = breakdown_frame(records)
    if frame.empty:
        return Text("no case of this run has a breakdown of its peak")
    return _BreakdownTable(frame)


def group_notes(group: Group) -> list[str]:
    """Return the lines under a group's tables."""
    found = environments(group)
    about = (
        f"{device_words(found)}; {versions_words(found)}; {date_words(group)}. "
        f"Models: {model_words(group)}."
    )
    rates = throughput_note(group) if is_timed(group) else None
    lines = [memory_note(group), rates, stop_note(group), about]
    lines += mismatch_notes(group)
    if group.replaced:
        are = "is" if group.replaced == 1 else "are"
        earlier = counted(group.replaced, "earlier record")
        lines.append(f"{earlier} of cases that were run again {are} not shown.")
    return [line for line in lines if line is not None]


def heading(group: Group) -> str:
    """Return a heading such as ``Training step, batch 1 (seq-scaling)``."""
    words = WORKLOADS[group.workload]
    return f"{words[0].upper()}{words[1:]}, {setting_words(group)} ({group.suite})"


def _tables_title(group: Group) -> Text:
    return Text(heading(group), style="bold")


class _GridTable:
    """A grid that takes as many columns side by side as the terminal has room for."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        everything = range(len(self.grid.variants))
        for narrow in (False, True):
            blocks = _blocks(self.grid, everything, options.max_width, narrow)
            if len(blocks) == 1 or narrow:
                break
        yield Text(f"{self.grid.quantity}", style="italic")
        for block in blocks:
            yield _columns(self.grid, block, narrow)
            yield ""


def _columns(grid: Grid, chosen: Sequence[int], narrow: bool) -> Table:
    padding = (0, 0, 0, 0) if narrow else (0, 1, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=padding, header_style="default")
    height = max(len(split_name(grid.variants[index], _NAME_WIDTH)) for index in chosen)
    table.add_column("\n" * (height - 1) + grid.corner, justify="right", no_wrap=True)
    for index in chosen:
        lines = split_name(grid.variants[index], _NAME_WIDTH)
        header = Text("\n".join([""] * (height - len(lines)) + lines))
        table.add_column(header, justify="right", no_wrap=True)
    for name, cells in grid.rows:
        table.add_row(name, *(_styled(cells[index], narrow) for index in chosen))
    return table


def _styled(cell: Cell, narrow: bool) -> Text:
    style = "bold" if cell.is_best else "" if cell.is_figure else "dim"
    return Text("\n".join(_lines(cell, narrow)), style=style)


def _lines(cell: Cell, narrow: bool) -> tuple[str, ...]:
    return cell.narrow() if narrow else cell.lines


def _blocks(grid: Grid, columns: Iterable[int], room: int, narrow: bool) -> list[list[int]]:
    """Columns in blocks that fit ``room`` characters, at least one to a block."""
    gap = 1 if narrow else 2
    first = max([len(grid.corner), *(len(name) for name, _ in grid.rows)]) + gap
    blocks: list[list[int]] = [[]]
    used = first
    for index in columns:
        lines = split_name(grid.variants[index], _NAME_WIDTH)
        for _, cells in grid.rows:
            lines = [*lines, *_lines(cells[index], narrow)]
        width = max(map(len, lines)) + gap
        if blocks[-1] and used + width > room:
            blocks.append([])
            used = first
        blocks[-1].append(index)
        used += width
    return blocks


class _BreakdownTable:
    """A block for each variant, with shares alone where there is no room for bytes as well."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with_bytes = options.max_width >= 96
        keys = ["workload", "variant", "batch"]
        for number, (key, cases) in enumerate(self.frame.groupby(keys, sort=False)):
            workload, variant, batch = (str(part) for part in key)
            title = Text(variant, style="bold")
            title.append(f" · {WORKLOADS[workload]} · batch {batch}", style="dim")
            yield title
            yield _breakdown_block(cases, with_bytes, show_header=number == 0)
            yield ""
        yield Text(
            "Shares of the allocated peak. Activations: made in a forward phase and kept for the "
            "backward pass; temporary: alive only inside the phase that made them.",
            style="dim",
        )


def _breakdown_block(cases: pd.DataFrame, with_bytes: bool, show_header: bool) -> Table:
    # Fixed widths, so that the blocks of all variants line up under the first one's header.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, show_header=show_header)
    for header, width in (("length", 6), ("peak", 9), ("in phase", 9)):
        table.add_column(header, justify="right", width=width, no_wrap=True)
    for part in BREAKDOWN:
        header = "temporary" if part == "temporaries" else part
        width = 13 if with_bytes else len(header)
        table.add_column(header, justify="right", width=width, no_wrap=True)
    for case in cases.to_dict("records"):
        cells = [_whole_percent(case[f"{part}_share"]) for part in BREAKDOWN]
        if with_bytes:
            sizes = [format_bytes(case[f"{part}_bytes"]) for part in BREAKDOWN]
            cells = [f"{size} {cell:>3}" for size, cell in zip(sizes, cells, strict=True)]
        table.add_row(
            format_tokens(case["length"]),
            format_bytes(case["total_bytes"]),
            case["breakdown_phase"] or "–",
            *cells,
        )
    return table


def _whole_percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"
