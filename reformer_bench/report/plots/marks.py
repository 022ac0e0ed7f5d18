"""The marks of one curve: lines, points, spreads, and the signs where it stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from reformer_bench.report.plots.curves import Curve, PlotPoint, Stop, StopKind
from reformer_bench.report.plots.style import MUTED, Look

PREDICTED = (0, (3, 2))
"""Dashes of a line that leads to a predicted figure."""
GUESS_WIDTH = 1.4
WIDTH = 1.9
SIGN_OFFSET = 11.0
"""Typographic points from a curve's last point to the sign that it stopped there."""

_WORDS: dict[StopKind, str] = {
    "memory": "out of memory",
    "budget": "over budget",
    "time": "time limit",
    "other": "failed",
}
_MARKERS: dict[StopKind, str] = {"memory": "x", "budget": "x", "time": ">", "other": "+"}


def draw_curve(ax: Axes, curve: Curve, look: Look, order: float, extra_width: float = 0.0) -> None:
    """Draw a curve on axes whose ranges are set; ``order`` is its place in the stack.

    ``extra_width``: what it is drawn wider by, to show on both sides of a curve that hides it.
    """
    for first, last in itertools.pairwise(curve.points):
        if not (_is_inside(ax, first.value) or _is_inside(ax, last.value)):
            continue
        guess = first.is_predicted or last.is_predicted
        style: Any = PREDICTED if guess else look.dashes
        width = (GUESS_WIDTH if guess else WIDTH) + extra_width
        ends = [first.x, last.x], [first.value, last.value]
        ax.plot(*ends, color=look.colour, linewidth=width, linestyle=style,
                solid_capstyle="round", zorder=order)  # fmt: skip
    shown = [point for point in curve.points if _is_inside(ax, point.value)]
    stopped_at = {stop.x: stop for stop in curve.stops}
    for point in shown:
        _draw_spread(ax, point, look, order)
        stop = stopped_at.get(point.x)
        style = point_style(look, point, extra_width)
        if stop is not None and stop.value is not None:
            style = stop_style(stop.kind, look.colour)
        # Whole even where the edge of the panel is near.
        ax.plot(point.x, point.value, zorder=order + 0.05, clip_on=False, **style)
    _draw_end(ax, curve, shown, look, order)


def end_stop(curve: Curve, shown: Sequence[PlotPoint]) -> Stop | None:
    """The stop that has no figure and follows the last point; None: no sign is due there."""
    if not shown:
        return None
    after = [stop for stop in curve.stops if stop.x > shown[-1].x]
    already = any(stop.x == point.x for stop in curve.stops for point in shown)
    return None if already else min(after, key=lambda stop: stop.x, default=None)


def point_style(look: Look, point: PlotPoint | None = None, extra: float = 0.0) -> dict[str, Any]:
    """How a variant's point is drawn: filled where measured, open where predicted."""
    is_open = point is not None and point.is_predicted
    return {
        "marker": look.marker,
        "markersize": look.size + 1.5 * extra,
        "color": look.colour,
        "markerfacecolor": "white" if is_open else look.colour,
        "markeredgecolor": look.colour if is_open else "white",
        "markeredgewidth": 1.3 if is_open else 0.7,
    }


def stop_style(kind: StopKind, colour: str) -> dict[str, Any]:
    """How a stop is drawn, by what ran out."""
    return {
        "marker": _MARKERS[kind],
        "markersize": 7.0,
        "markeredgecolor": colour,
        "markeredgewidth": 1.5 if kind == "time" else 2.0,
        "markerfacecolor": "white",
        "linestyle": "none",
    }


def stop_words(kind: StopKind) -> str:
    """What ran out."""
    return _WORDS[kind]


def keys(curves: Iterable[Curve]) -> list[Line2D]:
    """A key for each kind of mark that occurs, beyond plain measured points and lines."""
    curves = list(curves)
    points = [point for curve in curves for point in curve.points]
    found = []
    if any(point.lower is not None for point in points):
        bar = {"marker": "$\u2336$", "markersize": 9, "markeredgewidth": 0.3, "linestyle": "none"}
        found.append(_key("interquartile range", color=MUTED, **bar))
    if any(point.is_predicted for point in points):
        ring = {"marker": "o", "markerfacecolor": "white", "markersize": 5.6}
        dashes = {"linestyle": PREDICTED, "linewidth": GUESS_WIDTH}
        found.append(_key("predicted", color=MUTED, **ring, **dashes))
    kinds = {stop.kind for curve in curves if curve.points for stop in curve.stops}
    words: dict[StopKind, str] = {kind: _WORDS[kind] for kind in _WORDS if kind in kinds}
    if {"memory", "budget"} <= kinds:
        # One sign, one key.
        words["memory"] += f" or {words.pop('budget')}"
    return found + [
        _key(f"stopped: {word}", **stop_style(kind, MUTED)) for kind, word in words.items()
    ]


def _key(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **style)


def _is_inside(ax: Axes, value: float) -> bool:
    bottom, top = ax.get_ylim()
    return bool(bottom <= value <= top)


def _draw_spread(ax: Axes, point: PlotPoint, look: Look, order: float) -> None:
    if point.lower is None or point.upper is None:
        return
    below, above = max(0.0, point.value - point.lower), max(0.0, point.upper - point.value)
    ax.errorbar(point.x, point.value, yerr=[[below], [above]], fmt="none", ecolor=look.colour,
                elinewidth=1.3, capsize=3.2, capthick=1.3, zorder=order)  # fmt: skip


def _draw_end(ax: Axes, curve: Curve, shown: Sequence[PlotPoint], look: Look, order: float) -> None:
    """The sign of a stop without a figure: beside the last point, for it has no height."""
    stop = end_stop(curve, shown)
    if stop is None:
        return
    beside = ScaledTranslation(SIGN_OFFSET / 72, 0, ax.figure.dpi_scale_trans)
    last = shown[-1]
    ax.plot(last.x, last.value, transform=ax.transData + beside, zorder=order + 0.06,
            clip_on=False, **stop_style(stop.kind, look.colour))  # fmt: skip
