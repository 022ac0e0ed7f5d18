"""The table of a comparison for the terminal: old, new, change, tolerance, and what grew."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from reformer_bench.check.compare import CaseComparison, Change, Comparison, Status
from reformer_bench.check.words import (
    STATUS_WORDS,
    amount,
    case_name,
    figure_name,
    messages,
    notes,
    share_words,
    summary,
)
from reformer_bench.report.fitted import Column, FittedTable, Row

_STYLES = {
    Status.OK: "dim",
    Status.IMPROVEMENT: "green",
    Status.NOW_FITS: "green",
    Status.NEW: "yellow",
    Status.NOW_MEASURED: "yellow",
    Status.NOT_MEASURED: "yellow",
}
_MOST_ROWS = 4


def check_table(comparison: Comparison) -> RenderableType:
    """Make a table of the cases with figures, worst first, and say below it what grew and why the
    other cases have none.
    """
    figures = ("figure", "old", "new", "change", "tolerance")
    columns = [Column(""), Column("case"), Column("figure")]
    columns += [Column(header, right=True) for header in figures[1:]]
    rows = [row for found in comparison.worst_first for row in _rows(found)]
    parts: list[RenderableType] = (
        [FittedTable(columns, rows, heads=2, once=True), ""] if rows else []
    )
    lines = [Text(line, style=_STYLES.get(status, "red")) for status, line in messages(comparison)]
    lines += [Text(note, style="dim") for note in notes(comparison)]
    return Group(*parts, *lines, *([""] if lines else []), Text(summary(comparison), "bold"))


def deciding(found: CaseComparison) -> Sequence[Change]:
    """Return the figures to show of a case: those that grew or shrank too much, or else the whole
    peaks.
    """
    peaks = [c for c in found.changes if c.figure.phase is None and c.figure.metric.is_exact]
    return (found.regressions or found.improvements or peaks)[:_MOST_ROWS]


def _rows(found: CaseComparison) -> list[Row]:
    heads = (STATUS_WORDS[found.status], case_name(found.case))
    style = _STYLES.get(found.status, "red")
    return [Row((*heads, *cells(change)), style) for change in deciding(found)]


def cells(change: Change) -> tuple[str, str, str, str, str]:
    """Return figure, old, new, change and tolerance, as text."""
    figure = change.figure
    return (
        figure_name(figure),
        amount(figure, change.old),
        amount(figure, change.new),
        share_words(change) if change.new != change.old else "=",
        str(change.tolerance),
    )
