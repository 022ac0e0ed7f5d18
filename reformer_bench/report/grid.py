"""A group of records as a grid of cells: lengths down, variants across, for any output format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reformer_bench.claims.quantities import cold_rate, is_measured
from reformer_bench.report.frames import Group, case_row
from reformer_bench.report.words import outcome_words, rate_figure, row_name, three_figures
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
    """Return a grid of memory, and one of throughput where anything was run."""
    return [memory_grid(group), *([throughput_grid(group)] if is_timed(group) else [])]


def is_timed(group: Group) -> bool:
    """Whether any case of the group was run, and not only predicted."""
    return any(
        record.memory.allocator is None or is_measured(record)
        for record in group.records
        if record.outcome not in (Outcome.OVER_BUDGET, Outcome.SKIPPED)
    )


def memory_grid(group: Group) -> Grid:
    """Return the peaks of the allocator; the smallest of a row is best."""
    return make_grid(group, "peak memory", peak, format_bytes, min)


def throughput_grid(group: Group) -> Grid:
    """Return thousands of tokens per second; the largest of a row is best."""
    return make_grid(group, "throughput, 1,000 tokens per second", _rate, rate_figure, max)


def peak(record: Record) -> float | None:
    """Return the allocator's peak in bytes; None unless the case finished."""
    return record.memory.peak_bytes if record.outcome is Outcome.OK else None


def foreseen_bytes(record: Record) -> int | None:
    """The predicted peak of a case that has no measured one; None of any other."""
    return None if record.outcome is Outcome.OK else record.memory.predicted_peak_bytes


def _rate(record: Record) -> float | None:
    rate: float | None = case_row(record)["tokens_per_second"]
    return rate if record.outcome is Outcome.OK else None


def make_grid(
    group: Group,
    quantity: str,
    value_of: Callable[[Record], float | None],
    show: Callable[[float], str],
    best_of: Callable[[list[float]], float],
) -> Grid:
    """Make a grid of one figure; a case without it says why in words.

    ``value_of`` finds the figure, ``show`` writes it, ``best_of`` picks a row's best.
    """
    corner = "length" if group.batch is not None else "length × batch"
    rows = []
    for length in group.lengths:
        records = [group.cell(variant, length) for variant in group.variants]
        values = [None if record is None else value_of(record) for record in records]
        known = [value for value in values if value is not None]
        # Figures that look the same are equally good.
        best = show(best_of(known)) if len(known) > 1 else None
        cells = []
        for record, value in zip(records, values, strict=True):
            if value is None:
                cold = cold_rate(record) if value_of is _rate and record is not None else None
                words = _words_cell(record, with_prediction=value_of is peak)
                cells.append(words if cold is None else Cell((f"{show(cold)} cold",)))
            else:
                text = show(value)
                cells.append(Cell((text,), is_figure=True, is_best=text == best))
        rows.append((row_name(group, length), tuple(cells)))
    return Grid(quantity, corner, group.variants, tuple(rows))


def _words_cell(record: Record | None, *, with_prediction: bool) -> Cell:
    if record is None:
        return Cell(("",))
    if record.outcome is Outcome.OK:
        return Cell(("not measured",))
    words, foreseen = outcome_words(record), foreseen_bytes(record)
    if not with_prediction or foreseen is None:
        return Cell((words,))
    prediction = f"≈ {format_bytes(foreseen)}"
    # A case that was not tried has nothing of its own to say.
    return Cell((prediction,) if record.outcome is Outcome.SKIPPED else (words, prediction))


def ratio_grids(group: Group, baseline: str | None) -> list[Grid]:
    """Return peak memory and time of a step as multiples of the baseline's at the same
    length.

    There are none without a baseline, or where the group doesn't have it.
    """
    if baseline not in group.variants:
        return []
    return [
        make_grid(group, f"{what}, as multiples of {baseline}", ratio, three_figures, min)
        for what, ratio in (
            ("peak memory", _relative(group, baseline, peak)),
            ("time of a step", _relative(group, baseline, _step_ms)),
        )
    ]


def mismatch_notes(group: Group) -> list[str]:
    """Say, for each variant that another library runs, what could not be matched to what
    was asked.
    """
    notes = []
    for variant in group.variants:
        told = [r for r in group.series(variant) if r.settings.get("mismatches")]
        if told:
            # The longest case: what depends on length is then said of where it matters most.
            settings = told[-1].settings
            notes.append(
                f"{variant} is {settings['library']}, pinned as its records say; it differs in: "
                f"{settings['mismatches']}."
            )
    return notes


def _relative(
    group: Group, baseline: str, value_of: Callable[[Record], float | None]
) -> Callable[[Record], float | None]:
    def ratio(record: Record) -> float | None:
        against = group.cell(baseline, record.case.length)
        base = None if against is None else value_of(against)
        value = value_of(record)
        return None if value is None or not base else value / base

    return ratio


def _step_ms(record: Record) -> float | None:
    median: float | None = case_row(record)["median_ms"]
    return median if record.outcome is Outcome.OK else None
