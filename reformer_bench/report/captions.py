"""What stands around the panels of a figure: title, legend, key of signs, footnote."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reformer_bench.analysis.groups import Group
from reformer_bench.report.curves import Curve, Quantity
from reformer_bench.report.notes import (
    date_words,
    device_words,
    environments,
    memory_note,
    model_words,
    throughput_note,
    versions_words,
)
from reformer_bench.report.strokes import keys, point_style
from reformer_bench.report.style import FONT_SIZE, MUTED, SMALL, TITLE_SIZE, Look
from reformer_bench.report.words import setting_words, split_name

MARGIN = 0.2
"""Inches from the figure's left edge to all text around the panels."""
HEAD = 0.78
"""Inches that the two lines of the title take."""

_LINE = 0.155
_KEY = 0.26
_CHARACTERS_PER_INCH = 16.6
_FOOT_MARGIN = 0.1


def foot_height(footer: Sequence[str], found: Sequence[Curve]) -> float:
    """Inches that a footnote and the key above it, if there is one, take."""
    return _FOOT_MARGIN + _LINE * len(footer) + (_KEY if keys(list(found)) else 0.05)


def draw_head(figure: Figure, title: str, group: Group) -> None:
    """The title and, below it, device and batch."""
    width, height = figure.get_size_inches()
    x = MARGIN / width
    figure.text(x, 1 - 0.14 / height, title, fontsize=TITLE_SIZE, weight="bold", va="top")
    where = f"{device_words(environments(group))} · {setting_words(group)}"
    figure.text(x, 1 - 0.42 / height, where, fontsize=FONT_SIZE, color=MUTED, va="top")


def footnote(group: Group, quantities: Sequence[Quantity], width: float) -> list[str]:
    """Lines: what was measured, on which models, with which PyTorch, when. ``width`` in inches."""
    notes = {"memory": memory_note(group), "throughput": throughput_note(group)}
    text = " ".join(notes[quantity] for quantity in quantities)
    versions = f"{versions_words(environments(group))}; {date_words(group)}."
    columns = int((width - 2 * MARGIN) * _CHARACTERS_PER_INCH)
    return textwrap.wrap(f"{text} Models: {model_words(group)}. {versions}", columns)


def draw_foot(figure: Figure, footer: Sequence[str], found: Sequence[Curve]) -> None:
    """The footnote, and above it the key of the signs that occur."""
    width, height = figure.get_size_inches()
    x, y = MARGIN / width, _FOOT_MARGIN / height
    text = figure.text(x, y, "\n".join(footer), fontsize=8.2, color=MUTED, va="bottom")
    text.set_linespacing(1.35)
    signs = keys(list(found))
    if signs:
        figure.legend(
            handles=signs,
            loc="lower left",
            bbox_to_anchor=(x, y + (_LINE * len(footer) + 0.06) / height),
            ncol=len(signs),
            frameon=False,
            fontsize=SMALL,
            borderaxespad=0,
            borderpad=0.1,
            handletextpad=0.5,
            columnspacing=1.8,
            handlelength=1.8,
        )


def draw_side_legend(
    figure: Figure, ax: Axes, names: Sequence[str], looks: Mapping[str, Look]
) -> None:
    """Names of the curves to the right of a panel."""
    frame = ax.get_position()
    figure.legend(
        handles=[_handle(looks[name], "\n".join(split_name(name, 20))) for name in names],
        loc="upper left",
        bbox_to_anchor=(frame.x1 + 0.01, frame.y1),
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0,
    )


def legend_columns(names: Sequence[str]) -> int:
    """In how many columns a legend over two panels stands."""
    return 3 if len(names) > 4 else max(1, len(names))


def draw_top_legend(figure: Figure, names: Sequence[str], looks: Mapping[str, Look]) -> None:
    """Names of the curves in rows under the title."""
    width, height = figure.get_size_inches()
    columns = legend_columns(names)
    # A legend fills its columns first; reordered, it reads along its rows.
    by_column = [name for column in range(columns) for name in names[column::columns]]
    figure.legend(
        handles=[_handle(looks[name], name) for name in by_column],
        loc="upper left",
        bbox_to_anchor=(MARGIN / width, 1 - (HEAD - 0.06) / height),
        ncol=columns,
        frameon=False,
        fontsize=FONT_SIZE,
        columnspacing=2.2,
        handlelength=2.2,
        borderaxespad=0,
        borderpad=0.2,
    )


def _handle(look: Look, name: str) -> Line2D:
    style = point_style(look)
    return Line2D([], [], label=name, linestyle=look.dashes, linewidth=1.9, **style)
