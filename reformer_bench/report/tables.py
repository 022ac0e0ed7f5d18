"""Tables for the terminal: a run in summary, its cases in detail, and what its peaks are
made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.report.frames import BREAKDOWN, STEPS, CaseRow, PeakKind, breakdown_bytes
from reformer_bench.report.grid import Cell, Grid, figure_grids, is_timed, ratio_grids
from reformer_bench.report.groups import Group, group_records
from reformer_bench.report.words import (
    WORKLOADS,
    date_words,
    device_words,
    memory_note,
    mismatch_notes,
    model_words,
    outcome_words,
    percent,
    rate_figure,
    setting_words,
    split_name,
    stop_note,
    three_figures,
    throughput_note,
    versions_words,
)
from reformer_bench.schema.quartiles import Quartiles
from reformer_bench.schema.record import PHASES, NvmlMemory, Outcome, Record
from reformer_bench.schema.units import counted, format_bytes, format_tokens

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
        parts += [Text(heading(group), style="bold"), *map(_GridTable, grids)]
        parts += [Text(line, style="dim") for line in group_notes(group)]
        parts.append("")
    return Stack(*(parts[:-1] or ["no records"]))


def heading(group: Group) -> str:
    """Return a heading such as ``Training step, batch 1 (seq-scaling)``."""
    words = WORKLOADS[group.workload]
    return f"{words[0].upper()}{words[1:]}, {setting_words(group)} ({group.suite})"


def group_notes(group: Group) -> list[str]:
    """Return the lines under a group's tables."""
    found = group.environments
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


class _GridTable:
    """A grid that takes as many columns side by side as the terminal has room for."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for narrow in (False, True):
            blocks = self._blocks(options.max_width, narrow)
            if len(blocks) == 1:
                break
        yield Text(self.grid.quantity, style="italic")
        for block in blocks:
            yield self._table(block, narrow)
            yield ""

    def _blocks(self, room: int, narrow: bool) -> list[list[list[Text]]]:
        """Return blocks of columns that fit ``room`` characters, at least one column to a block; a
        column is its header and its cells.
        """
        gap = 1 if narrow else 2
        first = max([len(self.grid.corner), *(len(name) for name, _ in self.grid.rows)]) + gap
        blocks: list[list[list[Text]]] = [[]]
        used = first
        for index, variant in enumerate(self.grid.variants):
            header = Text("\n".join(split_name(variant, _NAME_WIDTH)))
            column = [header, *(_cell_text(cells[index], narrow) for _, cells in self.grid.rows)]
            width = max(len(line) for text in column for line in text.plain.split("\n")) + gap
            if blocks[-1] and used + width > room:
                blocks.append([])
                used = first
            blocks[-1].append(column)
            used += width
        return blocks

    def _table(self, block: list[list[Text]], narrow: bool) -> Table:
        padding = (0, 0 if narrow else 1, 0, 0)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=padding, header_style="default")
        height = max(header.plain.count("\n") for header, *_ in block)
        table.add_column("\n" * height + self.grid.corner, justify="right", no_wrap=True)
        for header, *_ in block:
            above = Text("\n" * (height - header.plain.count("\n")))
            table.add_column(above + header, justify="right", no_wrap=True)
        names = [name for name, _ in self.grid.rows]
        for row in zip(names, *(cells for _, *cells in block), strict=True):
            table.add_row(*row)
        return table


def _cell_text(cell: Cell, narrow: bool) -> Text:
    style = "bold" if cell.is_best else "" if cell.is_figure else "dim"
    return Text("\n".join(cell.narrow() if narrow else cell.lines), style=style)


def detail_table(records: Iterable[Record]) -> RenderableType:
    """Show everything measured, a block for each case: peaks by what measured them,
    phases, times.
    """
    blocks: list[RenderableType] = []
    for record in records:
        blocks += [_case_block(record), ""]
    return Stack(*(blocks[:-1] or ["no records"]))


def _case_block(record: Record) -> RenderableType:
    """Show a title, the figures of the whole case, and a table of its phases."""
    parts: list[RenderableType] = [_case_title(record)]
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
    if record.timing is not None or record.memory.allocator is not None:
        parts.append(_phase_table(record))
    return Stack(*parts)


def _case_title(record: Record) -> Text:
    case = record.case
    words = {Outcome.OK: "finished", Outcome.SKIPPED: "skipped"}.get(record.outcome)
    text = Text(f"{case.variant} · {format_tokens(case.length)} × {case.batch}", style="bold")
    text.append(f" · {WORKLOADS[case.workload]} · {case.device} · {case.id} · ", style="default")
    style = "red" if record.outcome.is_stop else "green"
    return text.append(words or outcome_words(record), style=style)


def case_facts(record: Record) -> dict[str, str]:
    """Return the figures of the whole case as text, by name; what was not measured is left out."""
    allocator, host, timing = record.memory.allocator, record.memory.host, record.timing
    predicted, row, facts = record.memory.predicted_peak_bytes, CaseRow(record), {}
    if allocator is not None:
        facts["allocated"] = format_bytes(allocator.peak_allocated_bytes)
        if allocator.peak_reserved_bytes is not None:
            facts["reserved"] = format_bytes(allocator.peak_reserved_bytes)
    if record.memory.nvml is not None:
        facts["NVML"] = _nvml_words(record.memory.nvml)
    if host is not None:
        before = format_bytes(host.before_bytes)
        facts["resident"] = f"{format_bytes(host.peak_bytes)} ({before} before the case)"
    if predicted is not None:
        facts["predicted"] = format_bytes(predicted)
    if timing is not None and row.step is not None:
        facts["warm step"] = _step_words(row.step, timing.n_warmup)
    if row.rate is not None and record.counts_tokens:
        facts["throughput"] = f"{rate_figure(row.rate)} thousand tokens per second"
    elif row.rate is not None:
        facts["throughput"] = f"{three_figures(row.rate)} examples per second"
    if record.flops is not None:
        facts["FLOPs"] = f"{record.flops / 1e9:,.4g} GFLOP a step"
        if row.matmul_share is not None:
            share = percent(row.matmul_share)
            facts["FLOPs"] += f", {share} of the speed of one large matrix product"
    if timing is not None:
        facts["cold step"] = _duration(timing.cold.total_ms)
        facts["build"] = _duration(timing.build_ms)
    if row.overhead_ms is not None:
        taken = _duration(row.overhead_ms)
        facts["overhead"] = f"{taken} that reformer-bench took to start and stop the case"
    if record.memory.predicted_notes:
        facts["of the prediction"] = " ".join(record.memory.predicted_notes)
    if record.settings:
        facts["settings"] = ", ".join(f"{k} = {v}" for k, v in sorted(record.settings.items()))
    return facts


def _nvml_words(nvml: NvmlMemory) -> str:
    before = format_bytes(nvml.device_before_bytes)
    words = f"device {format_bytes(nvml.device_peak_bytes)} ({before} before the case)"
    if nvml.process_peak_bytes is not None:
        source = "" if nvml.process_source == "process" else " (as the device's growth)"
        words += f", process {format_bytes(nvml.process_peak_bytes)}{source}"
    if nvml.energy_mj is not None:
        words += f", {nvml.energy_mj / 1e3:,.3g} J"
    if nvml.mean_power_mw is not None:
        words += f", {nvml.mean_power_mw / 1e3:.3g} W mean"
    return words


def _step_words(step: Quartiles, n_warmup: int) -> str:
    words = f"{_duration(step.median)} median of {counted(step.n, 'sample')}"
    if step.iqr is not None:
        share = percent(step.relative_iqr or 0.0)
        words += f", interquartile range {_duration(step.iqr)} ({share})"
    return f"{words}, after {counted(n_warmup, 'warm-up step')}"


def _duration(milliseconds: float | None) -> str:
    """Write milliseconds, or seconds from ten on, in three figures."""
    if milliseconds is None:
        return "–"
    if milliseconds < 10_000:
        digits = ".3g" if milliseconds < 1000 else ",.0f"
        return f"{milliseconds:{digits}} ms"
    return f"{milliseconds / 1e3:{'.3g' if milliseconds < 1e6 else ',.0f'}} s"


def _phase_table(record: Record) -> FittedTable:
    row, allocator = CaseRow(record), record.memory.allocator
    reserved = allocator is not None and allocator.peak_reserved_bytes is not None
    kinds: tuple[PeakKind, ...] = ("allocated", "reserved") if reserved else ("allocated",)
    headers = [f"{step}\n{kind}" for step in STEPS for kind in kinds]
    headers += ["cold\ntime", "warm\nmedian", "warm\nIQR"]
    rows = []
    for phase in PHASES:
        warm = row.warm_phase(phase)
        cells = [
            *(format_bytes(row.phase_peak_bytes(s, phase, k)) for s in STEPS for k in kinds),
            _duration(row.cold_phase_ms(phase)),
            _duration(None if warm is None else warm.median),
            _duration(None if warm is None else warm.iqr),
        ]
        if any(cell != "–" for cell in cells):
            rows.append(Row((f"  {phase}", *cells)))
    columns = [Column("  phase"), *(Column(header, right=True) for header in headers)]
    return FittedTable(columns, rows)


def breakdown_table(records: Iterable[Record]) -> RenderableType:
    """Show, for each measured peak, what the bytes are, and their shares."""
    known = [record for record in records if record.breakdown is not None]
    if not known:
        return Text("no case of this run has a breakdown of its peak")
    return _BreakdownTable(known)


class _BreakdownTable:
    """A block for each variant, with shares alone where there is no room for bytes as well."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.blocks: dict[tuple[str, str, int], list[Record]] = {}
        for record in records:
            case = record.case
            key = (case.workload, case.variant, case.batch)
            self.blocks.setdefault(key, []).append(record)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with_bytes = options.max_width >= 96
        for number, ((workload, variant, batch), records) in enumerate(self.blocks.items()):
            title = Text(variant, style="bold")
            title.append(f" · {WORKLOADS[workload]} · batch {batch}", style="dim")
            yield title
            yield _breakdown_block(records, with_bytes, show_header=number == 0)
            yield ""
        yield Text(
            "Shares of the allocated peak. Activations: made in a forward phase and kept for the "
            "backward pass; temporary: alive only inside the phase that made them.",
            style="dim",
        )


def _breakdown_block(records: Sequence[Record], with_bytes: bool, show_header: bool) -> Table:
    # Fixed widths, so that the blocks of all variants line up under the first one's header.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, show_header=show_header)
    for header, width in (("length", 6), ("peak", 9), ("in phase", 9)):
        table.add_column(header, justify="right", width=width, no_wrap=True)
    for kind in BREAKDOWN:
        header = "temporary" if kind == "temporaries" else kind
        width = 13 if with_bytes else len(header)
        table.add_column(header, justify="right", width=width, no_wrap=True)
    for record in records:
        assert record.memory.allocator is not None
        assert record.breakdown is not None
        total = record.breakdown.total_bytes
        cells = []
        for kind in BREAKDOWN:
            size = breakdown_bytes(record.breakdown, kind)
            share = _whole_percent(size / total)
            cells.append(f"{format_bytes(size)} {share:>3}" if with_bytes else share)
        phase = record.memory.allocator.breakdown_phase or "–"
        table.add_row(format_tokens(record.case.length), format_bytes(total), phase, *cells)
    return table


def _whole_percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"
