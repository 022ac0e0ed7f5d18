"""One panel: a quantity against a size, its axes, its curves and their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from reformer_bench.report.groups import Group
from reformer_bench.report.plots.axes import (
    budget_lines,
    bytes_axis,
    length_axis,
    rate_axis,
    size_axis,
)
from reformer_bench.report.plots.captions import wrapped
from reformer_bench.report.plots.curves import Curve, Quantity, hidden
from reformer_bench.report.plots.labels import Box, Label, leader, place
from reformer_bench.report.plots.marks import SIGN_OFFSET, draw_curve, end_stop
from reformer_bench.report.plots.style import FONT_SIZE, GRID, Look
from reformer_bench.report.plots.varied import LENGTH, Axis
from reformer_bench.schema.units import format_tokens

NAMES: dict[Quantity, str] = {
    "memory": "peak memory",
    "activations": "activation memory",
    "throughput": "tokens per second",
}
_LABEL_WIDTH = 20
_HEADROOM = 6.0
"""Predictions may lie this many times beyond the measured figures; to what lies farther only a line
leads, or one quadratic curve would press all others together."""
_HIDDEN_EXTRA = 2.2
"""Typographic points that a curve is wider than the one that hides it."""


def draw_panel(
    ax: Axes,
    found: Sequence[Curve],
    looks: Mapping[str, Look],
    heights: Sequence[float],
    *,
    has_budgets: bool = True,
) -> list[Box]:
    """Curves and stops of a quantity. ``heights`` sets the range of the y axis.

    Returns where text stands already, in display units.
    """
    in_bytes = found[0].quantity != "throughput"
    (bytes_axis if in_bytes else rate_axis)(ax, heights)
    names = budget_lines(ax) if in_bytes and has_budgets else []
    ax.set_ylabel(NAMES[found[0].quantity], labelpad=6)
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="major", length=4, width=0.8)
    ax.tick_params(which="minor", length=2.5, width=0.6)
    lies_under: dict[str, int] = {}
    for pair in reversed(hidden(found)):
        # Of several in one place each is wider than the next.
        lies_under[pair.under.stem] = max(
            lies_under.get(pair.under.stem, 0), lies_under.get(pair.curve.stem, 0) + 1
        )
    for order, curve in enumerate(found):
        extra = _HIDDEN_EXTRA * lies_under.get(curve.stem, 0)
        draw_curve(ax, curve, looks[curve.stem], 3 + 0.1 * order, extra)
    return [Box(*name.get_window_extent().extents) for name in names]


def draw_x_axis(ax: Axes, group: Group, axis: Axis, sizes: Sequence[int]) -> None:
    """The axis of a size, with a batch beside each length where the batch goes with it."""
    width = ax.get_window_extent().width / _unit(ax)
    label = axis.label
    if axis is not LENGTH:
        size_axis(ax, sizes)
    elif group.batch is None:
        size_axis(ax, sizes, lambda n: f"{format_tokens(n)}\n× {group.batch_at(n)}")
        label = "sequence length × batch"
    else:
        length_axis(ax, sizes, width)
        label = "sequence length, tokens"
    ax.set_xlabel(label, labelpad=5)


def heights(found: Sequence[Curve]) -> list[float]:
    """Every height that the y axis must show."""
    measured = [p.value for c in found for p in c.points if not p.is_predicted]
    spreads = [(p.lower, p.upper) for c in found for p in c.points]
    measured += [bound for pair in spreads for bound in pair if bound is not None]
    extra = [p.value for c in found for p in c.points if p.is_predicted]
    if measured:
        low, high = min(measured) / _HEADROOM, max(measured) * _HEADROOM
        extra = [value for value in extra if low <= value <= high]
        # One that lies far off altogether is worth a pressed panel: else it would not be there.
        for one in found:
            values = [p.value for p in one.points]
            if values and not any(low <= value <= high for value in values):
                extra.append(min(values))
    return measured + extra


def label_ends(
    ax: Axes, found: Sequence[Curve], looks: Mapping[str, Look], bounds: Box, taken: Sequence[Box]
) -> list[Box] | None:
    """Name each curve at its end, within ``bounds`` and off ``taken``; None if there is no room.

    Returns where the names are, all in display units. Draws nothing where it returns None: a
    legend is needed then.
    """
    named = [curve for curve in found if _path(ax, curve).size]
    texts = [_name(ax, curve, looks[curve.stem]) for curve in named]
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


def _path(ax: Axes, curve: Curve) -> np.ndarray:
    """Points of a curve that lie in the panel, and its end sign, in display units [n, 2]."""
    bottom, top = ax.get_ylim()
    shown = [p for p in curve.points if bottom <= p.value <= top]
    if not shown:
        return np.empty((0, 2))
    path = ax.transData.transform([(p.x, p.value) for p in shown])
    if end_stop(curve, shown) is not None:
        sign = path[-1] + np.array([SIGN_OFFSET * _unit(ax), 0])
        path = np.concatenate([path, sign[None]])
    return np.asarray(path)


def _name(ax: Axes, curve: Curve, look: Look) -> Text:
    """A curve's name somewhere on the panel, to be moved to its place."""
    text = ax.text(
        0,
        0,
        "\n".join(wrapped(curve.label, _LABEL_WIDTH)),
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
