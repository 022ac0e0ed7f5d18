"""The marks of one curve: lines, points, spreads, and the signs where it stopped."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reformer_bench.report.curves import Curve, Point, Stop, StopKind
from reformer_bench.report.style import MUTED, Look

PREDICTED = (0, (3, 2))
"""Dashes of a line that leads to a predicted figure."""
DIRECTION = (0, (1, 1.6))
"""Dots of a line that leads to a stop with no figure."""
GUESS_WIDTH = 1.4

_WORDS: dict[StopKind, str] = {
    "memory": "out of memory",
    "budget": "over budget",
    "time": "time limit",
    "other": "failed",
}

_MARKERS: dict[StopKind, str] = {"memory": "x", "budget": "x", "time": ">", "other": "s"}


def draw_curve(ax: Axes, curve: Curve, look: Look, order: float) -> None:
    """Draw a curve on axes whose ranges are set; ``order`` is its place in the stack."""
    bottom, top = ax.get_ylim()
    points = [point for point in curve.points if bottom <= point.value <= top]
    for first, last in itertools.pairwise(points):
        guess = first.is_predicted or last.is_predicted
        style: Any = PREDICTED if guess else look.dashes
        width = GUESS_WIDTH if guess else 1.9
        _line(ax, first, last.length, last.value, look, style, width, order)
    _draw_spreads(ax, points, look, order)
    stopped_at = {stop.length for stop in curve.stops}
    for point in points:
        if point.length not in stopped_at:
            # Whole even where the edge of the panel is near.
            style = point_style(look, point)
            ax.plot(point.length, point.value, zorder=order + 0.05, clip_on=False, **style)
    for stop in curve.stops:
        _draw_stop(ax, curve, stop, points, look, order)


def stop_height(ax: Axes, curve: Curve, stop: Stop) -> float:
    """Where a stop is drawn: at its figure, or at the edge of the panel that figure lies beyond."""
    bottom, top = ax.get_ylim()
    if stop.value is None:
        # What never fitted needs too much memory, and gives no throughput.
        return top if curve.quantity == "memory" else bottom
    return min(max(stop.value, bottom), top)


def point_style(look: Look, point: Point | None = None) -> dict[str, Any]:
    """How a variant's point is drawn: filled where measured, open where predicted."""
    is_open = point is not None and point.is_predicted
    return {
        "marker": look.marker,
        "markersize": 5.6,
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
        "markeredgewidth": 2.0 if _MARKERS[kind] == "x" else 1.5,
        "markerfacecolor": "white",
        "linestyle": "none",
    }


def keys(curves: list[Curve]) -> list[Line2D]:
    """A key for each kind of mark that occurs, beyond plain measured points and lines."""
    stops = [stop for curve in curves for stop in curve.stops]
    points = [point for curve in curves for point in curve.points]
    found = []
    if any(point.lower is not None for point in points):
        bar = {"marker": "$\u2336$", "markersize": 9, "markeredgewidth": 0.3, "linestyle": "none"}
        found.append(_key("interquartile range", color=MUTED, **bar))
    if any(point.is_predicted for point in points):
        ring = {"marker": "o", "markerfacecolor": "white", "markersize": 5.6}
        dashes = {"linestyle": PREDICTED, "linewidth": GUESS_WIDTH}
        found.append(_key("predicted", color=MUTED, **ring, **dashes))
    kinds = {stop.kind for stop in stops}
    words: dict[StopKind, str] = {kind: _WORDS[kind] for kind in _WORDS if kind in kinds}
    if {"memory", "budget"} <= kinds:
        # One sign, one key.
        words["memory"] += f" or {words.pop('budget')}"
    found += [_key(word, **stop_style(kind, MUTED)) for kind, word in words.items()]
    if any(not stop.is_predicted for stop in stops):
        dots = {"linestyle": DIRECTION, "linewidth": GUESS_WIDTH}
        found.append(_key("not measured, direction only", color=MUTED, **dots))
    return found


def _key(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **style)


def _draw_spreads(ax: Axes, points: list[Point], look: Look, order: float) -> None:
    for point in points:
        if point.lower is None or point.upper is None:
            continue
        below, above = max(0.0, point.value - point.lower), max(0.0, point.upper - point.value)
        bars = ax.errorbar(
            [point.length],
            [point.value],
            yerr=np.array([[below], [above]]),
            fmt="none",
            ecolor=look.colour,
            elinewidth=1.3,
            capsize=3.2,
            capthick=1.3,
        )
        for part in (*bars[1], *bars[2]):
            part.set_zorder(order)


def _draw_stop(
    ax: Axes, curve: Curve, stop: Stop, points: list[Point], look: Look, order: float
) -> None:
    height = stop_height(ax, curve, stop)
    before = [point for point in points if point.length < stop.length]
    reached = any(point.length == stop.length for point in points)
    if before and not reached:
        style = PREDICTED if stop.is_predicted else DIRECTION
        _line(ax, before[-1], stop.length, height, look, style, GUESS_WIDTH, order)
    sign = stop_style(stop.kind, look.colour)
    ax.plot(stop.length, height, zorder=order + 0.06, clip_on=False, **sign)


def _line(
    ax: Axes,
    first: Point,
    length: int,
    value: float,
    look: Look,
    style: Any,
    width: float,
    order: float,
) -> None:
    ax.plot(
        [first.length, length],
        [first.value, value],
        color=look.colour,
        linewidth=width,
        linestyle=style,
        solid_capstyle="round",
        zorder=order,
    )
