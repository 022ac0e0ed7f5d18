"""One panel: a quantity against length, its axes, its curves and their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from reformer_bench.report.curves import Curve, Quantity
from reformer_bench.report.placement import Box, Label, leader, place
from reformer_bench.report.scales import budget_lines, bytes_axis, length_axis, rate_axis
from reformer_bench.report.strokes import draw_curve, stop_height
from reformer_bench.report.style import FONT_SIZE, GRID, Look
from reformer_bench.report.words import split_name

_AXIS_NAMES = {"memory": "peak memory", "throughput": "tokens per second"}
_LABEL_WIDTH = 20
_HEADROOM = 6.0
"""Predictions and stops may lie this many times beyond the measured figures; what lies farther is
left out or drawn on the edge, or one quadratic curve would press all others together."""


def draw_panel(
    ax: Axes,
    found: Sequence[Curve],
    looks: Mapping[str, Look],
    quantity: Quantity,
    lengths: Sequence[int],
) -> list[Box]:
    """Axes, budgets, curves and stops of a quantity. ``lengths`` sets the range of the x axis.

    Returns where text stands already, in display units.
    """
    length_axis(ax, lengths, ax.get_window_extent().width / _unit(ax))
    (bytes_axis if quantity == "memory" else rate_axis)(ax, _heights(found))
    names = budget_lines(ax) if quantity == "memory" else []
    ax.set_xlabel("sequence length, tokens", labelpad=5)
    ax.set_ylabel(_AXIS_NAMES[quantity], labelpad=6)
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="major", length=4, width=0.8)
    ax.tick_params(which="minor", length=2.5, width=0.6)
    for order, curve in enumerate(found):
        draw_curve(ax, curve, looks[curve.variant], 3 + 0.1 * order)
    return [Box(*name.get_window_extent().extents) for name in names]


def label_ends(
    ax: Axes, found: Sequence[Curve], looks: Mapping[str, Look], bounds: Box, taken: Sequence[Box]
) -> list[Box] | None:
    """Name each curve at its end, within ``bounds`` and off ``taken``; None if there is no room.

    Returns where the names are, all in display units. Draws nothing where it returns None: a
    legend is needed then.
    """
    named = [curve for curve in found if _path(ax, curve).size]
    texts = [_name(ax, curve, looks[curve.variant]) for curve in named]
    labels = []
    for curve, text in zip(named, texts, strict=True):
        size, (x, y) = text.get_window_extent(), _path(ax, curve)[-1]
        labels.append(Label(float(x), float(y), size.width, size.height))
    places = place(labels, obstacles(ax, named), taken, bounds, _unit(ax))
    if places is None:
        for text in texts:
            text.remove()
        return None
    for text, label, box in zip(texts, labels, places, strict=True):
        _put(ax, text, label, box)
    return places


def obstacles(ax: Axes, found: Sequence[Curve]) -> np.ndarray:
    """Points [n, 2] along every curve and around every marker, in display units."""
    unit = _unit(ax)
    points = [np.empty((0, 2))]
    ring = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * 3.5 * unit
    for curve in found:
        path = _path(ax, curve)
        points += [vertex + ring for vertex in path]
        for start, end in itertools.pairwise(path):
            n = max(2, int(np.hypot(*(end - start)) / (3 * unit)))
            t = np.linspace(0, 1, n)[:, None]
            points.append(start * (1 - t) + end * t)
    return np.concatenate(points)


def _unit(ax: Axes) -> float:
    """One typographic point in display units."""
    return ax.figure.dpi / 72


def _heights(found: Sequence[Curve]) -> list[float]:
    """Every height that the y axis must show."""
    measured = [p.value for c in found for p in c.points if not p.is_predicted]
    spreads = [(p.lower, p.upper) for c in found for p in c.points]
    measured += [bound for pair in spreads for bound in pair if bound is not None]
    extra = [p.value for c in found for p in c.points if p.is_predicted]
    extra += [s.value for c in found for s in c.stops if s.value is not None]
    if measured:
        low, high = min(measured) / _HEADROOM, max(measured) * _HEADROOM
        extra = [value for value in extra if low <= value <= high]
    return measured + extra


def _path(ax: Axes, curve: Curve) -> np.ndarray:
    """Points and stops of a curve that lie in the panel, by length, in display units [n, 2]."""
    bottom, top = ax.get_ylim()
    places = {p.length: p.value for p in curve.points if bottom <= p.value <= top}
    places |= {stop.length: stop_height(ax, curve, stop) for stop in curve.stops}
    return ax.transData.transform(sorted(places.items())) if places else np.empty((0, 2))


def _name(ax: Axes, curve: Curve, look: Look) -> Text:
    """A curve's name somewhere on the panel, to be moved to its place."""
    text = ax.text(
        0,
        0,
        "\n".join(split_name(curve.variant, _LABEL_WIDTH)),
        transform=ax.transAxes,
        fontsize=FONT_SIZE,
        color=look.ink,
        linespacing=1.0,
        va="bottom",
        ha="left",
        zorder=6,
    )
    text.set_path_effects([effects.withStroke(linewidth=2.5, foreground="white")])
    return text


def _put(ax: Axes, text: Text, label: Label, box: Box) -> None:
    # In axes units: a file's resolution may differ from the one that labels were placed at.
    x, y = ax.transAxes.inverted().transform((box.x0, box.y0))
    text.set_position((float(x), float(y)))
    line = leader(label, box, _unit(ax))
    if line is not None:
        (x0, y0), (x1, y1) = ax.transData.inverted().transform([line[:2], line[2:]])
        ax.plot(
            [x0, x1], [y0, y1], color=text.get_color(), linewidth=0.6, zorder=2.5, clip_on=False
        )
