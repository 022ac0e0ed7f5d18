"""What stands around the panels of a figure: title, legends, notes, footnote."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reformer_bench.report.groups import Group
from reformer_bench.report.plots.curves import Curve, Quantity
from reformer_bench.report.plots.panel import LINE_WIDTH, point_style
from reformer_bench.report.plots.style import (
    FONT_SIZE,
    INK,
    MUTED,
    SMALL,
    TITLE_SIZE,
    Look,
    text_inches,
)
from reformer_bench.report.words import (
    WORKLOADS,
    date_words,
    device_words,
    length_words,
    memory_note,
    model_words,
    setting_words,
    throughput_note,
    versions_words,
)

MARGIN = 0.2
"""Inches from the figure's left edge to all text around the panels."""
HEAD = 0.78
"""Inches that the two lines of the title take."""

_LINE = 0.155
_SIGNS_LINE = 0.26
_LEGEND_LINE = 0.22
_HANDLE = 0.75
"""Inches that a legend's entry takes besides its name."""
_CHARACTERS_PER_INCH = 16.6
_SIDE_CHARACTERS = 20
_FOOT_SIZE = 8.2
_FOOT_MARGIN = 0.1
_ACTIVATIONS = "Activation memory: the peak less parameters, gradients and optimizer state."


@dataclass(frozen=True)
class Footer:
    """What stands under the panels: a legend of the signs, notes, and what was measured on what."""

    signs: Sequence[Line2D]
    notes: Sequence[str]
    footnote: Sequence[str]

    @property
    def height(self) -> float:
        """Inches that it takes."""
        lines = len(self.notes) + len(self.footnote)
        return _FOOT_MARGIN + _LINE * lines + (_SIGNS_LINE if self.signs else 0.05)

    def draw(self, figure: Figure) -> None:
        """Draw it at the bottom of a figure."""
        width, height = figure.get_size_inches()
        x, y = MARGIN / width, _FOOT_MARGIN
        for lines, ink in ((self.footnote, MUTED), (self.notes, INK)):
            if lines:
                text = figure.text(x, y / height, "\n".join(lines), fontsize=_FOOT_SIZE,
                                   color=ink, va="bottom")  # fmt: skip
                text.set_linespacing(1.35)
            y += _LINE * len(lines)
        if self.signs:
            figure.legend(
                handles=list(self.signs),
                loc="lower left",
                bbox_to_anchor=(x, (y + 0.06) / height),
                ncol=len(self.signs),
                fontsize=SMALL,
                borderpad=0.1,
                handletextpad=0.5,
                columnspacing=1.8,
                handlelength=1.8,
            )


def make_footer(
    group: Group,
    quantities: Iterable[Quantity],
    width: float,
    notes: Sequence[str] = (),
    signs: Sequence[Line2D] = (),
) -> Footer:
    """Make the footer of a figure ``width`` inches wide: what was measured, on which models."""
    said = {
        "memory": memory_note(group),
        "activations": _ACTIVATIONS,
        "throughput": throughput_note(group),
    }
    text = " ".join(said[quantity] for quantity in quantities)
    versions = f"{versions_words(group.environments)}; {date_words(group)}."
    columns = int((width - 2 * MARGIN) * _CHARACTERS_PER_INCH)
    footnote = textwrap.wrap(f"{text} Models: {model_words(group)}. {versions}", columns)
    lines = [line for note in notes for line in textwrap.wrap(note, columns)]
    return Footer(signs, lines, footnote)


def draw_head(figure: Figure, title: str, group: Group, lengths: Collection[int]) -> None:
    """Draw the title with the suite; below it workload, device, batch and the length, if one."""
    width, height = figure.get_size_inches()
    x = MARGIN / width
    figure.text(
        x,
        1 - 0.14 / height,
        f"{group.suite}: {title[0].lower()}{title[1:]}",
        fontsize=TITLE_SIZE,
        weight="bold",
        va="top",
    )
    words = [WORKLOADS[group.workload], device_words(group.environments), setting_words(group)]
    if len(lengths) == 1:
        words += [length_words(length, group.records) for length in lengths]
    line = " · ".join(words)
    figure.text(x, 1 - 0.42 / height, line, fontsize=FONT_SIZE, color=MUTED, va="top")


def draw_side_legend(ax: Axes, curves: Sequence[Curve], looks: Mapping[str, Look]) -> None:
    """Name the curves to the right of a panel, from the highest end to the lowest."""
    ends = {curve: curve.points[-1].value for curve in curves if curve.points}
    ordered = sorted(ends, key=lambda curve: -ends[curve])
    legend = ax.legend(
        handles=[
            _handle(looks[curve.name], "\n".join(wrapped(curve.label, _SIDE_CHARACTERS)))
            for curve in ordered
        ],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        fontsize=FONT_SIZE,
        labelspacing=0.7,
    )
    for text, curve in zip(legend.get_texts(), ordered, strict=True):
        text.set_color(looks[curve.name].ink)


def top_legend_height(labels: Mapping[str, str], width: float) -> float:
    """Return the inches that the legend over the panels takes; one name needs none."""
    if len(labels) < 2:
        return 0.0
    return _LEGEND_LINE * -(-len(labels) // _columns(labels, width)) + 0.12


def draw_top_legend(figure: Figure, labels: Mapping[str, str], looks: Mapping[str, Look]) -> None:
    """Name the curves in rows under the title."""
    if len(labels) < 2:
        return
    width, height = figure.get_size_inches()
    columns = _columns(labels, width)
    # A legend fills its columns first; reordered, it reads along its rows.
    names = list(labels)
    by_column = [name for column in range(columns) for name in names[column::columns]]
    figure.legend(
        handles=[_handle(looks[name], labels[name]) for name in by_column],
        loc="upper left",
        bbox_to_anchor=(MARGIN / width, 1 - (HEAD - 0.06) / height),
        ncol=columns,
        fontsize=FONT_SIZE,
        columnspacing=2.2,
        handlelength=2.2,
        borderpad=0.2,
    )


def wrapped(name: str, width: int) -> list[str]:
    """Break a name into lines after spaces and hyphens; a part that is longer stays whole.

    A number stays with what it counts.
    """
    together = re.sub(r"(\d) (?=\w)", "\\1\N{NO-BREAK SPACE}", name)
    return textwrap.wrap(together, width, break_long_words=False)


def _columns(labels: Mapping[str, str], width: float) -> int:
    """Return as many columns as have room, filled evenly."""
    widths = [text_inches(label, FONT_SIZE) + _HANDLE for label in labels.values()]
    for columns in range(len(widths), 1, -1):
        # The last row may be short, but no column empty.
        rows = -(-len(widths) // columns)
        fits = sum(max(widths[c::columns]) for c in range(columns)) <= width - 2 * MARGIN
        if fits and -(-len(widths) // rows) == columns:
            return columns
    return 1


def _handle(look: Look, label: str) -> Line2D:
    style = point_style(look)
    return Line2D([], [], label=label, linestyle=look.dashes, linewidth=LINE_WIDTH, **style)
