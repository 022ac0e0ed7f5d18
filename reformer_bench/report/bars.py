"""The figure of a single length: a bar for each variant and quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reformer_bench.analysis.groups import Group, stopped
from reformer_bench.report.captions import HEAD, MARGIN, draw_head, foot
from reformer_bench.report.curves import Point, Quantity, has_figure, point
from reformer_bench.report.figures import new_axes, new_figure, title_of
from reformer_bench.report.panel import NAMES
from reformer_bench.report.scales import bar_axis
from reformer_bench.report.style import FONT_SIZE, GRID, MUTED, SMALL, Look, text_inches
from reformer_bench.report.varied import all_series
from reformer_bench.report.words import outcome_words, three_figures
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import format_bytes, format_tokens

_WIDTH, _RIGHT, _BETWEEN, _BELOW = 10.2, 0.35, 0.4, 0.55
_ROW, _LEAST_HEIGHT = 0.34, 0.5
_THICK = 0.62


@dataclass(frozen=True)
class Bar:
    """One variant at the length that bars are drawn of."""

    stem: str
    label: str
    record: Record | None
    """None: it was not tried at this length."""

    def point(self, quantity: Quantity) -> Point | None:
        """The figure of a quantity."""
        return None if self.record is None else point(self.record, 0, quantity)

    def words(self, quantity: Quantity) -> str:
        """What stands at the bar's end: the figure, and how the case ended if not well."""
        found = self.point(quantity)
        parts = []
        if found is not None:
            is_rate = quantity == "throughput"
            parts.append(three_figures(found.value) if is_rate else format_bytes(found.value))
        if self.record is not None and self.record.outcome is not Outcome.OK:
            parts.append(outcome_words(self.record))
        return ", ".join(parts) or "not measured"


def bars(group: Group) -> list[Bar]:
    """A bar for each variant, at the first length at which anything has a figure."""
    length = min(r.case.length for r in group.records if has_figure(r))
    return [
        Bar(one.stem, one.label, group.cell(one.records[0].case.variant, length))
        for one in all_series(group, [])
    ]


def bars_figure(
    group: Group,
    found: Sequence[Bar],
    quantities: Sequence[Quantity],
    looks: Mapping[str, Look],
) -> Figure:
    """A panel for each quantity that some bar has, variants downwards."""
    lengths = {bar.record.case.length for bar in found if bar.record is not None}
    below = foot(group, quantities, _WIDTH, _notes(group, found, quantities, lengths))
    bottom, height = below.height + _BELOW, max(_LEAST_HEIGHT, _ROW * len(found))
    figure = new_figure(_WIDTH, HEAD + height + bottom)
    left = MARGIN + max(text_inches(bar.label, FONT_SIZE) for bar in found) + 0.2
    width = (_WIDTH - left - _BETWEEN * (len(quantities) - 1) - _RIGHT) / len(quantities)
    for number, quantity in enumerate(quantities):
        ax = new_axes(figure, left + number * (width + _BETWEEN), bottom, width, height)
        _draw(ax, quantity, found, looks)
        if number:
            ax.set_yticklabels([])
    draw_head(figure, title_of(quantities), group, lengths)
    below.draw(figure)
    return figure


def _notes(
    group: Group, found: Sequence[Bar], quantities: Sequence[Quantity], lengths: set[int]
) -> list[str]:
    """That some bars are predicted, and what was tried at other lengths."""
    points = [bar.point(quantity) for bar in found for quantity in quantities]
    predicted = any(p is not None and p.is_predicted for p in points)
    notes = ["Hatched bars are predicted, not measured."] if predicted else []
    return notes + [
        f"{r.case.variant} at {format_tokens(r.case.length)} tokens: {outcome_words(r)}."
        for r in group.records
        if stopped(r) and r.case.length not in lengths
    ]


def _draw(ax: Axes, quantity: Quantity, found: Sequence[Bar], looks: Mapping[str, Look]) -> None:
    points = [bar.point(quantity) for bar in found]
    bar_axis(ax, [p.value for p in points if p is not None], is_bytes=quantity != "throughput")
    for row, (bar, p) in enumerate(zip(found, points, strict=True)):
        text: dict[str, Any] = {"va": "center", "fontsize": SMALL}
        end = 0.0
        if p is None:
            text["color"] = MUTED
        else:
            end = _draw_bar(ax, row, p, looks[bar.stem])
        ax.annotate(bar.words(quantity), (end, row), (4, 0), textcoords="offset points", **text)
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_yticks(range(len(found)), [bar.label for bar in found])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(NAMES[quantity], labelpad=5)


def _draw_bar(ax: Axes, row: int, p: Point, look: Look) -> float:
    """The bar and its spread; returns where they end."""
    face, hatch = ("white", "////") if p.is_predicted else (look.colour, None)
    ax.barh(row, p.value, _THICK, color=face, hatch=hatch, edgecolor=look.colour, zorder=2)
    if p.lower is None or p.upper is None:
        return p.value
    spread = [[max(0.0, p.value - p.lower)], [max(0.0, p.upper - p.value)]]
    ax.errorbar(p.value, row, xerr=spread, fmt="none", ecolor=MUTED, capsize=2.5, zorder=3)
    return max(p.value, p.upper)
