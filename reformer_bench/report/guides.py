"""Reference slopes: short faint lines in the emptiest part of a panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from reformer_bench.report.curves import Quantity
from reformer_bench.report.placement import Box

_BYTES = ((1, "∝ L"), (2, "∝ L²"))
_SLOPES = {
    "memory": _BYTES,
    "activations": _BYTES,
    # Tokens per second: flat where a step's time grows as L.
    "throughput": ((0, "time ∝ L"), (-1, "time ∝ L²")),
}
_LONGEST = 4.0
"""A guide spans lengths L to 4 L at most,"""
_TALLEST = 0.3
"""and no more than this share of the panel's height."""
_CLEAR = 22.0
"""Typographic points to everything else from which a place is as good as any."""
_INK = "#969696"


def draw_guides(ax: Axes, quantity: Quantity, taken: np.ndarray, boxes: Sequence[Box]) -> None:
    """Two slopes from one corner, clear of ``taken`` [n, 2] and ``boxes``, low in the panel.

    Both are in display units. Draws nothing where no place is clear.
    """
    left, right = ax.get_xlim()
    reach = _reach(ax, quantity)
    if right / left < 4 * reach:
        return
    unit = ax.figure.dpi / 72
    frame = Box(*ax.get_window_extent().extents).padded(-6 * unit)
    everything = [taken[::2], *(_filled(box, unit) for box in boxes)]
    obstacles = np.concatenate([points for points in everything if len(points)])
    best: tuple[float, float, float] | None = None
    to_data, to_display = ax.transData.inverted(), ax.transAxes
    across = np.linspace(0.04, 0.88, 22)
    for fy in np.linspace(0.04, 0.95, 19):
        # Memory grows with length and leaves the lower right empty; throughput the lower left.
        for fx in across[::-1] if quantity == "memory" else across:
            x, y = to_data.transform(to_display.transform((fx, fy)))
            points = _outline(ax, _lines(quantity, x, y, reach), x, y, unit)
            (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
            if not Box(x0, y0, x1, y1).within(frame):
                continue
            gaps = np.hypot(*(points[:, None] - obstacles[None]).transpose(2, 0, 1))
            clearance = min(float(gaps.min()), _CLEAR * unit)
            if best is None or clearance > best[0] + 0.5 * unit:
                best = (clearance, float(x), float(y))
    if best is not None and best[0] > 0.5 * _CLEAR * unit:
        _draw(ax, _lines(quantity, best[1], best[2], reach), best[1], best[2])


def _reach(ax: Axes, quantity: Quantity) -> float:
    bottom, top = ax.get_ylim()
    steepest = max(abs(slope) for slope, _ in _SLOPES[quantity])
    return float(min(_LONGEST, (top / bottom) ** (_TALLEST / steepest)))


def _lines(quantity: Quantity, x: float, y: float, reach: float) -> list[tuple[float, float, str]]:
    return [(x * reach, y * reach**slope, name) for slope, name in _SLOPES[quantity]]


def _outline(
    ax: Axes, lines: Sequence[tuple[float, float, str]], x: float, y: float, unit: float
) -> np.ndarray:
    """Points along the guides and over their names, in display units [n, 2]."""
    t = np.linspace(0, 1, 10)[:, None]
    start = ax.transData.transform((x, y))
    points = []
    for end_x, end_y, name in lines:
        end = ax.transData.transform((end_x, end_y))
        points.append(start * (1 - t) + end * t)
        width = (4 + 5.4 * len(name)) * unit
        points.append(end + np.array([[width, 5 * unit], [width, -5 * unit], [width / 2, 0]]))
    return np.concatenate(points)


def _filled(box: Box, unit: float) -> np.ndarray:
    """A grid of points over a box [n, 2]."""
    x = np.arange(box.x0, box.x1 + 6 * unit, 6 * unit)
    y = np.arange(box.y0, box.y1 + 6 * unit, 6 * unit)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _draw(ax: Axes, lines: Sequence[tuple[float, float, str]], x: float, y: float) -> None:
    for end_x, end_y, name in lines:
        ax.plot([x, end_x], [y, end_y], color=_INK, linewidth=1.0, zorder=1.5)
        ax.annotate(
            name,
            (end_x, end_y),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=_INK,
            style="italic",
            va="center",
        )
