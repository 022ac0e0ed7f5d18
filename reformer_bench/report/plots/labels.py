"""Where labels go: next to what they name, clear of curves and of each other, or nowhere.

Everything is in display units with y upwards; nothing here knows of plots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from reformer_bench.report.plots.curves import Quantity

_ANGLES = tuple(range(0, 360, 15))
_SWEEPS = 4
_COVERED = 400.0
_LEADER_CROSSING = 60.0


@dataclass(frozen=True)
class Box:
    """A rectangle from (x0, y0) to (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    def padded(self, pad: float) -> Box:
        """The rectangle grown by ``pad`` on every side."""
        return Box(self.x0 - pad, self.y0 - pad, self.x1 + pad, self.y1 + pad)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )

    def within(self, other: Box) -> bool:
        """Whether this one lies in the other entirely."""
        return (
            other.x0 <= self.x0
            and self.x1 <= other.x1
            and other.y0 <= self.y0
            and self.y1 <= other.y1
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle closest to (x, y)."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)

    def count_inside(self, points: np.ndarray) -> int:
        """How many of ``points`` [n, 2] lie inside."""
        x, y = points[:, 0], points[:, 1]
        inside = (x > self.x0) & (x < self.x1) & (y > self.y0) & (y < self.y1)
        return int(inside.sum())


@dataclass(frozen=True)
class Label:
    """A text of some size that belongs to a point."""

    x: float
    y: float
    width: float
    height: float


def place(
    labels: Sequence[Label],
    obstacles: np.ndarray,
    taken: Sequence[Box],
    bounds: Box,
    unit: float,
) -> list[Box] | None:
    """A place for each label within ``bounds``, close to its point; None if one can't be clean.

    ``obstacles`` [n, 2] are points of everything drawn that no text may cover, ``taken`` is text
    that stands already. ``unit`` is one typographic point in display units. Greedy, with a few
    sweeps that reconsider each choice.
    """
    candidates = [_candidates(label, bounds, taken, unit) for label in labels]
    if not all(candidates):
        return None
    # What a place costs by itself doesn't change between sweeps.
    own = [
        [_own_cost(label, box, obstacles, unit) for box in boxes]
        for label, boxes in zip(labels, candidates, strict=True)
    ]
    chosen: list[int | None] = [None] * len(labels)
    # Labels with the fewest good places choose first.
    order = sorted(range(len(labels)), key=lambda i: -float(np.sort(own[i])[:8].mean()))
    for _ in range(_SWEEPS):
        for i in order:
            others = [
                (labels[j], candidates[j][k])
                for j, k in enumerate(chosen)
                if k is not None and j != i
            ]
            costs = [
                cost + _shared_cost(labels[i], box, others, unit)
                for cost, box in zip(own[i], candidates[i], strict=True)
            ]
            chosen[i] = int(np.argmin(costs))
    boxes = [candidates[i][k] for i, k in enumerate(chosen) if k is not None]
    return boxes if _is_clean(boxes, obstacles, unit) else None


def leader(label: Label, box: Box, unit: float) -> tuple[float, float, float, float] | None:
    """The line (x0, y0, x1, y1) from point to label, or None where the label is close enough."""
    x, y = box.nearest(label.x, label.y)
    if math.hypot(x - label.x, y - label.y) < 13 * unit:
        return None
    return label.x, label.y, x, y


def _candidates(label: Label, bounds: Box, taken: Sequence[Box], unit: float) -> list[Box]:
    """Boxes whose nearest edge or corner lies at set distances and angles from the point."""
    boxes = []
    for distance in (7, 10, 16, 24, 34, 46, 60, 78):
        for angle in _ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = label.x + distance * unit * cos, label.y + distance * unit * sin
            # The box grows away from the point: right of it when the angle points right.
            x0 = x - label.width * (1 - _side(cos))
            y0 = y - label.height * (1 - _side(sin))
            box = Box(x0, y0, x0 + label.width, y0 + label.height)
            if box.within(bounds) and not any(box.overlaps(other) for other in taken):
                boxes.append(box)
    return boxes


def _side(component: float) -> float:
    """1 for a box wholly on the positive side, 0 for the negative, 0.5 for one that is centred."""
    return 0.5 if abs(component) < 0.2 else float(component > 0)


def _own_cost(label: Label, box: Box, obstacles: np.ndarray, unit: float) -> float:
    near = box.padded(2.0 * unit)
    x, y = box.nearest(label.x, label.y)
    distance = math.hypot(x - label.x, y - label.y)
    cost = distance / unit + _COVERED * near.count_inside(obstacles)
    # A leader may cross a curve where nothing else will do.
    t = np.linspace(0.15, 1.0, 12)[:, None]
    line = np.array([[label.x, label.y]]) * (1 - t) + np.array([[x, y]]) * t
    if distance > 12 * unit and len(obstacles):
        gaps = np.hypot(*(line[:, None, :] - obstacles[None, :, :]).transpose(2, 0, 1)).min(axis=1)
        cost += 6.0 * int((gaps < 2.5 * unit).sum())
    # To the right of its end, at its height, is where a reader looks for a curve's name.
    cost += 0.05 * abs((box.y0 + box.y1) / 2 - label.y) / unit
    return cost + (0.0 if box.x0 >= label.x else 3.0)


def _shared_cost(label: Label, box: Box, others: Sequence[tuple[Label, Box]], unit: float) -> float:
    cost = 0.0
    x, y = box.nearest(label.x, label.y)
    for other_label, other in others:
        if box.padded(2.5 * unit).overlaps(other):
            cost += 10 * _COVERED
        ox, oy = other.nearest(other_label.x, other_label.y)
        if _cross((label.x, label.y), (x, y), (other_label.x, other_label.y), (ox, oy)):
            cost += _LEADER_CROSSING
        if _through(other, label.x, label.y, x, y) or _through(
            box, other_label.x, other_label.y, ox, oy
        ):
            cost += _LEADER_CROSSING
        # A label of one curve right beside another's end would be read as that one's.
        gap = math.dist(box.nearest(other_label.x, other_label.y), (other_label.x, other_label.y))
        cost += 40.0 if gap < 5 * unit else 0.0
    return cost


def _through(box: Box, x0: float, y0: float, x1: float, y1: float) -> bool:
    """Whether a leader from (x0, y0) to (x1, y1) runs under a label."""
    enter, leave = 0.0, 1.0
    for start, step, low, high in (
        (x0, x1 - x0, box.x0, box.x1),
        (y0, y1 - y0, box.y0, box.y1),
    ):
        if step == 0:
            if not low < start < high:
                return False
            continue
        near, far = sorted(((low - start) / step, (high - start) / step))
        enter, leave = max(enter, near), min(leave, far)
    return enter < leave


def _cross(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> bool:
    """Whether the segments ab and cd cross."""

    def turn(p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def _is_clean(boxes: Sequence[Box], obstacles: np.ndarray, unit: float) -> bool:
    if any(box.padded(0.5 * unit).count_inside(obstacles) for box in boxes):
        return False
    pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    return not any(a.overlaps(b) for a, b in pairs)


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
