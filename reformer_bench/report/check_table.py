"""The table of a comparison for the terminal: old, new, change, tolerance, and what grew."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reformer_bench.analysis.changes import Change
from reformer_bench.analysis.regression import CaseComparison, Comparison, Status
from reformer_bench.report.check_words import (
    STATUS_WORDS,
    amount,
    case_name,
    figure_name,
    message,
    notes,
    share_words,
    summary,
)

_STYLES = {Status.OK: "dim", Status.IMPROVEMENT: "green", Status.NOW_FITS: "green"}
_MOST_ROWS = 4


def check_table(comparison: Comparison) -> RenderableType:
    """Make a table of the cases, worst first, with the figures that decide about each, and what
    grew.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in ("case", "figure"):
        table.add_column(header)
    for header in ("old", "new", "change", "tolerance"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for found in comparison.worst_first:
        _add(table, found)
    told = [c for c in comparison.worst_first if c.status is not Status.OK]
    lines = [Text(message(found), style=_style(found)) for found in told]
    lines += [Text(note, style="dim") for note in notes(comparison)]
    return Group(table, "", *lines, *([""] if lines else []), Text(summary(comparison), "bold"))


def deciding(found: CaseComparison) -> Sequence[Change]:
    """Return the figures to show of a case: those that grew or shrank too much, or else the whole
    peaks.
    """
    peaks = [c for c in found.changes if c.figure.phase is None and c.figure.metric.is_exact]
    return (found.regressions or found.improvements or peaks)[:_MOST_ROWS]


def _add(table: Table, found: CaseComparison) -> None:
    style, status = _style(found), STATUS_WORDS[found.status]
    changes = deciding(found)
    if not changes:
        table.add_row(case_name(found.case), "", "–", "–", "–", "–", status, style=style)
    for number, change in enumerate(changes):
        name = case_name(found.case) if number == 0 else ""
        table.add_row(name, *cells(change), status if number == 0 else "", style=style)


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


def _style(found: CaseComparison) -> str:
    return _STYLES.get(found.status, "red")
