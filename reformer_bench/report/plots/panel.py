"""One panel: a quantity against a size, its axes, its curves with their signs, and slopes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, ScaledTranslation

from reformer_bench.report.groups import Group
from reformer_bench.report.plots.axes import (
    budget_lines,
    bytes_axis,
    length_axis,
    rate_axis,
    size_axis,
)
from reformer_bench.report.plots.curves import (
    Curve,
    PlotPoint,
    Stop,
    StopKind,
    overlaps,
)
from reformer_bench.report.plots.style import MUTED, Look
from reformer_bench.report.plots.varied import LENGTH, Axis
from reformer_bench.report.words import length_name
from reformer_bench.schema.units import format_tokens

STOP_WORDS: dict[StopKind, str] = {
    "memory": "out of memory",
    "budget": "over budget",
    "time": "time limit",
    "other": "failed",
}
"""What ran out."""
LINE_WIDTH = 1.9

_STOP_MARKERS: dict[StopKind, str] = {"memory": "x", "budget": "x", "time": ">", "other": "+"}
_PREDICTED_DASHES = (0, (3, 2))
_PREDICTED_WIDTH = 1.4
_SIGN_OFFSET = 11.0
"""Typographic points from a curve's last point to the sign that it stopped there."""
_FARTHEST_PREDICTION = 6.0
"""Predictions may lie this many times beyond the measured figures; to what lies farther only a line
leads, or one quadratic curve would press all others together."""
_EXTRA_WIDTH = 2.2
"""Typographic points that a curve is wider than the one that hides it."""


def draw_panel(
    ax: Axes,
    found: Sequence[Curve],
    looks: Mapping[str, Look],
    heights: Sequence[float],
    *,
    has_budgets: bool = True,
) -> list[Bbox]:
    """Draw curves and stops of a quantity. ``heights`` sets the range of the y axis.

    Returns where text stands already, in display units.
    """
    in_bytes = found[0].quantity != "throughput"
    (bytes_axis if in_bytes else rate_axis)(ax, heights)
    names = budget_lines(ax) if in_bytes and has_budgets else []
    ax.set_ylabel(found[0].quantity_name, labelpad=6)
    ax.grid()
    ax.tick_params(which="major", length=4, width=0.8)
    ax.tick_params(which="minor", length=2.5, width=0.6)
    lies_under: dict[str, int] = {}
    for pair in reversed(overlaps(found)):
        # Of several in one place each is wider than the next.
        lies_under[pair.under.name] = max(
            lies_under.get(pair.under.name, 0), lies_under.get(pair.curve.name, 0) + 1
        )
    for order, curve in enumerate(found):
        extra = _EXTRA_WIDTH * lies_under.get(curve.name, 0)
        _draw_curve(ax, curve, looks[curve.name], 3 + 0.1 * order, extra)
    return [name.get_window_extent() for name in names]


def draw_x_axis(ax: Axes, group: Group, axis: Axis, sizes: Sequence[int]) -> None:
    """Draw the axis of a size, with a batch beside each length where the batch goes with it."""
    label = axis.label
    if axis is not LENGTH:
        size_axis(ax, sizes)
    elif group.batch is None:
        size_axis(ax, sizes, lambda n: f"{format_tokens(n)}\n× {group.batch_at(n)}")
        label = "sequence length × batch"
    else:
        length_axis(ax, sizes, ax.get_window_extent().width / _unit(ax))
        label = length_label(group)
    ax.set_xlabel(label, labelpad=5)


def length_label(group: Group) -> str:
    """Name the axis of lengths, with what they count where that is one thing."""
    name = length_name(group.records)
    if name is None:
        return "length"
    return f"sequence length, {name}" if name == "tokens" else f"length, {name}"


def heights_of(found: Sequence[Curve]) -> list[float]:
    """Return every height that the y axis must show."""
    measured = [p.value for c in found for p in c.points if not p.is_predicted]
    spreads = [(p.lower, p.upper) for c in found for p in c.points]
    measured += [bound for pair in spreads for bound in pair if bound is not None]
    extra = [p.value for c in found for p in c.points if p.is_predicted]
    if measured:
        low, high = min(measured) / _FARTHEST_PREDICTION, max(measured) * _FARTHEST_PREDICTION
        extra = [value for value in extra if low <= value <= high]
        # One that lies far off altogether is worth a pressed panel: else it would not be there.
        for one in found:
            values = [p.value for p in one.points]
            if values and not any(low <= value <= high for value in values):
                extra.append(min(values))
    return measured + extra


def _draw_curve(ax: Axes, curve: Curve, look: Look, order: float, extra_width: float) -> None:
    """Draw lines, points, spreads, and the signs where a curve stopped, on axes whose ranges are
    set.

    ``order`` is the curve's place in the stack; ``extra_width``: what it is drawn wider by, to show
    on both sides of a curve that hides it.
    """
    for first, last in itertools.pairwise(curve.points):
        if not (_is_inside(ax, first) or _is_inside(ax, last)):
            continue
        predicted = first.is_predicted or last.is_predicted
        style: Any = _PREDICTED_DASHES if predicted else look.dashes
        width = (_PREDICTED_WIDTH if predicted else LINE_WIDTH) + extra_width
        ends = [first.x, last.x], [first.value, last.value]
        ax.plot(*ends, color=look.colour, linewidth=width, linestyle=style,
                solid_capstyle="round", zorder=order)  # fmt: skip
    shown = [point for point in curve.points if _is_inside(ax, point)]
    stops = {stop.x: stop for stop in curve.stops}
    for point in shown:
        if point.lower is not None and point.upper is not None:
            below, above = max(0.0, point.value - point.lower), max(0.0, point.upper - point.value)
            ax.errorbar(point.x, point.value, yerr=[[below], [above]], fmt="none",
                        ecolor=look.colour, elinewidth=1.3, capsize=3.2, capthick=1.3,
                        zorder=order)  # fmt: skip
        stop = stops.get(point.x)
        style = point_style(look, is_open=point.is_predicted, extra=extra_width)
        if stop is not None and stop.value is not None:
            style = _stop_style(stop.kind, look.colour)
        # Whole even where the edge of the panel is near.
        ax.plot(point.x, point.value, zorder=order + 0.05, clip_on=False, **style)
    stop = _end_stop(curve, shown)
    if stop is not None:
        beside = ScaledTranslation(_SIGN_OFFSET / 72, 0, ax.figure.dpi_scale_trans)
        ax.plot(shown[-1].x, shown[-1].value, transform=ax.transData + beside,
                zorder=order + 0.06, clip_on=False,
                **_stop_style(stop.kind, look.colour))  # fmt: skip


def _is_inside(ax: Axes, point: PlotPoint) -> bool:
    bottom, top = ax.get_ylim()
    return bool(bottom <= point.value <= top)


def _end_stop(curve: Curve, shown: Sequence[PlotPoint]) -> Stop | None:
    """Return the stop that has no figure and follows the last point, beside which its sign stands,
    for it has no height; None: no sign is due there.
    """
    if not shown or {stop.x for stop in curve.stops} & {point.x for point in shown}:
        return None
    after = [stop for stop in curve.stops if stop.x > shown[-1].x]
    return min(after, key=lambda stop: stop.x, default=None)


def point_style(look: Look, *, is_open: bool = False, extra: float = 0.0) -> dict[str, Any]:
    """Return how a variant's point is drawn: filled where measured, open where predicted."""
    return {
        "marker": look.marker,
        "markersize": look.size + 1.5 * extra,
        "color": look.colour,
        "markerfacecolor": "white" if is_open else look.colour,
        "markeredgecolor": look.colour if is_open else "white",
        "markeredgewidth": 1.3 if is_open else 0.7,
    }


def _stop_style(kind: StopKind, colour: str) -> dict[str, Any]:
    """Return how a stop is drawn, by what ran out."""
    return {
        "marker": _STOP_MARKERS[kind],
        "markersize": 7.0,
        "markeredgecolor": colour,
        "markeredgewidth": 1.5 if kind == "time" else 2.0,
        "markerfacecolor": "white",
        "linestyle": "none",
    }


def sign_handles(curves: Iterable[Curve]) -> list[Line2D]:
    """Return a legend's handle for each kind of mark that occurs, beyond plain measured points and
    lines.
    """
    curves = list(curves)
    points = [point for curve in curves for point in curve.points]
    styles: dict[str, dict[str, Any]] = {}
    if any(point.lower is not None for point in points):
        styles["interquartile range"] = {"color": MUTED, "marker": "$\u2336$", "markersize": 9,
                                         "markeredgewidth": 0.3, "linestyle": "none"}  # fmt: skip
    if any(point.is_predicted for point in points):
        styles["predicted"] = {"color": MUTED, "marker": "o", "markerfacecolor": "white",
                               "markersize": 5.6, "linestyle": _PREDICTED_DASHES,
                               "linewidth": _PREDICTED_WIDTH}  # fmt: skip
    kinds = {stop.kind for curve in curves if curve.points for stop in curve.stops}
    words = {kind: text for kind, text in STOP_WORDS.items() if kind in kinds}
    if {"memory", "budget"} <= kinds:
        # They share a sign, and so its handle.
        words["memory"] += f" or {words.pop('budget')}"
    styles |= {f"stopped: {text}": _stop_style(kind, MUTED) for kind, text in words.items()}
    return [Line2D([], [], label=label, **style) for label, style in styles.items()]


def _unit(ax: Axes) -> float:
    """Return one typographic point in display units."""
    return float(ax.figure.dpi) / 72


_IN_BYTES = ((1, "∝ L"), (2, "∝ L²"))
_SLOPES = {
    "memory": _IN_BYTES,
    "activations": _IN_BYTES,
    # Tokens per second: flat where a step's time grows as L.
    "throughput": ((0, "time ∝ L"), (-1, "time ∝ L²")),
}
_LONGEST_SLOPE = 4.0
"""A slope spans lengths L to 4 L at most,"""
_TALLEST_SLOPE = 0.3
"""and no more than this share of the panel's height."""
_CLEAR = 22.0
"""Typographic points to everything else from which a place is as good as any."""
_SLOPE_INK = "#969696"


def draw_slopes(ax: Axes, found: Sequence[Curve], taken: Sequence[Bbox]) -> None:
    """Draw what growth as L and as L² looks like: two lines from one corner, low in the panel and
    clear of the curves and of what is ``taken`` (in display units); nothing where no place is
    clear.
    """
    quantity, unit = found[0].quantity, _unit(ax)
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    steepest = max(abs(slope) for slope, _ in _SLOPES[quantity])
    reach = float(min(_LONGEST_SLOPE, (top / bottom) ** (_TALLEST_SLOPE / steepest)))
    if right / left < 4 * reach:
        return
    frame = ax.get_window_extent().padded(-6 * unit)
    everything = [_covered(ax, found)[::2], *(_filled(box, unit) for box in taken)]
    obstacles = np.concatenate([points for points in everything if len(points)])
    best_clearance, best = 0.0, None
    across = np.linspace(0.04, 0.88, 22)
    for up in np.linspace(0.04, 0.95, 19):
        # Memory grows with length and leaves the lower right empty; throughput the lower left.
        for over in across[::-1] if quantity == "memory" else across:
            corner = ax.transAxes.transform((over, up))
            x, y = map(float, ax.transData.inverted().transform(corner))
            lines = [(x * reach, y * reach**slope, name) for slope, name in _SLOPES[quantity]]
            points = _outline(ax, (x, y), lines)
            if not (frame.contains(*points.min(axis=0)) and frame.contains(*points.max(axis=0))):
                continue
            gaps = np.hypot(*(points[:, None] - obstacles[None]).transpose(2, 0, 1))
            clearance = min(float(gaps.min()), _CLEAR * unit)
            if best is None or clearance > best_clearance + 0.5 * unit:
                best_clearance, best = clearance, (x, y, lines)
    if best is None or best_clearance <= 0.5 * _CLEAR * unit:
        return
    x, y, lines = best
    for end_x, end_y, name in lines:
        ax.plot([x, end_x], [y, end_y], color=_SLOPE_INK, linewidth=1.0, zorder=1.5)
        ax.annotate(name, (end_x, end_y), xytext=(4, 0), textcoords="offset points", fontsize=8.5,
                    color=_SLOPE_INK, style="italic", va="center")  # fmt: skip


def _covered(ax: Axes, found: Sequence[Curve]) -> np.ndarray:
    """Return points [n, 2] along every curve and around every marker, in display units."""
    unit = _unit(ax)
    points = [np.empty((0, 2))]
    ring = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * 3.5 * unit
    for curve in found:
        shown = [point for point in curve.points if _is_inside(ax, point)]
        if not shown:
            continue
        path = ax.transData.transform([(p.x, p.value) for p in shown])
        if _end_stop(curve, shown) is not None:
            path = np.vstack([path, path[-1] + np.array([_SIGN_OFFSET * unit, 0])])
        points += [vertex + ring for vertex in path]
        points += [along(start, end, 3 * unit) for start, end in itertools.pairwise(path)]
    return np.concatenate(points)


def along(start: np.ndarray, end: np.ndarray, apart: float) -> np.ndarray:
    """Return points [n, 2] from ``start`` to ``end``, so far apart or less."""
    t = np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / apart)))[:, None]
    return start * (1 - t) + end * t


def _filled(box: Bbox, unit: float) -> np.ndarray:
    """Return a grid of points over a box [n, 2]."""
    x = np.arange(box.x0, box.x1 + 6 * unit, 6 * unit)
    y = np.arange(box.y0, box.y1 + 6 * unit, 6 * unit)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _outline(
    ax: Axes, corner: tuple[float, float], lines: Sequence[tuple[float, float, str]]
) -> np.ndarray:
    """Return points along the slopes and over their names, in display units [n, 2]."""
    t, unit = np.linspace(0, 1, 10)[:, None], _unit(ax)
    start = ax.transData.transform(corner)
    points = []
    for end_x, end_y, name in lines:
        end = ax.transData.transform((end_x, end_y))
        points.append(start * (1 - t) + end * t)
        width = (4 + 5.4 * len(name)) * unit
        points.append(end + np.array([[width, 5 * unit], [width, -5 * unit], [width / 2, 0]]))
    return np.concatenate(points)
