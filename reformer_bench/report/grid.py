"""A group of records as a grid of cells: lengths down, variants across, for any output format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reformer_bench.report.frames import CaseRow, foreseen_bytes
from reformer_bench.report.groups import Group
from reformer_bench.report.words import (
    outcome_words,
    rate_figure,
    rate_noun,
    row_name,
    three_figures,
)
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import format_bytes


@dataclass(frozen=True)
class Cell:
    """The lines in one place of a table, and whether they are a figure and the row's best."""

    lines: tuple[str, ...]
    is_figure: bool = False
    is_best: bool = False

    def narrow(self) -> tuple[str, ...]:
        """Return the lines, with words that aren't figures broken into short lines."""
        if self.is_figure:
            return self.lines
        first, *rest = self.lines
        words = first.rsplit(" ", 1) if len(first) > 11 else [first]
        return (*words, *rest)


@dataclass(frozen=True)
class Grid:
    """The cells, by row (length) and column (variant)."""

    quantity: str
    corner: str
    variants: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def figure_grids(group: Group) -> list[Grid]:
    """Return a grid of peak memory, and one of throughput where anything was run.

    The smallest memory and the largest throughput of a row are its best.
    """
    memory = _grid(group, "peak memory", _peak, format_bytes, words_of=_words_and_prediction)
    if not is_timed(group):
        return [memory]
    noun = rate_noun(group.records)
    title = f"throughput, {'1,000 ' if noun == 'tokens' else ''}{noun} per second"
    return [memory, _grid_of_rates(group, title, in_thousands=noun == "tokens")]


def _grid_of_rates(group: Group, title: str, *, in_thousands: bool) -> Grid:
    show = rate_figure if in_thousands else three_figures

    def words(record: Record) -> tuple[str, ...]:
        rate = record.cold_rate
        return (_words(record) if rate is None else f"{show(rate)} cold",)

    return _grid(group, title, _rate, show, max, words_of=words)


def ratio_grids(group: Group, baseline: str | None) -> list[Grid]:
    """Return peak memory and time of a step as multiples of the baseline's at the same
    length.

    There are none without a baseline, or where the group doesn't have it.
    """
    if baseline not in group.variants:
        return []

    def grid(what: str, value_of: Callable[[Record], float | None]) -> Grid:
        def ratio(record: Record) -> float | None:
            against = group.cell(baseline, record.case.length)
            base = None if against is None else value_of(against)
            value = value_of(record)
            return None if value is None or not base else value / base

        return _grid(group, f"{what}, as multiples of {baseline}", ratio, three_figures)

    return [grid("peak memory", _peak), grid("time of a step", lambda record: record.step_ms)]


def is_timed(group: Group) -> bool:
    """Whether any case of the group was run, and not only predicted."""
    return any(
        not record.is_predicted
        for record in group.records
        if record.outcome not in (Outcome.OVER_BUDGET, Outcome.SKIPPED)
    )


def _grid(
    group: Group,
    quantity: str,
    value_of: Callable[[Record], float | None],
    show: Callable[[float], str],
    best_of: Callable[[list[float]], float] = min,
    words_of: Callable[[Record], tuple[str, ...]] = lambda record: (_words(record),),
) -> Grid:
    """Make a grid of one figure, which ``value_of`` finds, ``show`` writes and ``best_of`` picks
    the best of in a row. A case without the figure has the lines of ``words_of``.
    """
    rows = []
    for length in group.lengths:
        records = [group.cell(variant, length) for variant in group.variants]
        values = [None if record is None else value_of(record) for record in records]
        known = [value for value in values if value is not None]
        # Figures that look the same are equally good.
        best = show(best_of(known)) if len(known) > 1 else None
        cells = []
        for record, value in zip(records, values, strict=True):
            if value is not None:
                text = show(value)
                cells.append(Cell((text,), is_figure=True, is_best=text == best))
            else:
                cells.append(Cell(("",) if record is None else words_of(record)))
        rows.append((row_name(group, length), tuple(cells)))
    corner = "length" if group.batch is not None else "length × batch"
    return Grid(quantity, corner, group.variants, tuple(rows))


def _peak(record: Record) -> float | None:
    """Return the allocator's peak in bytes; None unless the case finished."""
    return record.memory.peak_bytes if record.finished else None


def _rate(record: Record) -> float | None:
    """Return the throughput; None unless the case finished."""
    return CaseRow(record).rate if record.finished else None


def _words(record: Record) -> str:
    return "not measured" if record.finished else outcome_words(record)


def _words_and_prediction(record: Record) -> tuple[str, ...]:
    foreseen = foreseen_bytes(record)
    if foreseen is None:
        return (_words(record),)
    prediction = f"≈ {format_bytes(foreseen)}"
    # A case that was not tried has nothing of its own to say.
    if record.outcome is Outcome.SKIPPED:
        return (prediction,)
    return _words(record), prediction
