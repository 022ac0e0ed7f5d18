"""The figure of all combinations at one length: time of a step against peak memory."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from reformer_bench.report.frames import CaseRow
from reformer_bench.report.frontier import Option, frontier
from reformer_bench.report.groups import Group
from reformer_bench.report.plots.axes import bytes_axis, duration_axis
from reformer_bench.report.plots.captions import HEAD, draw_head, make_footer, wrapped
from reformer_bench.report.plots.figures import new_axes, new_figure
from reformer_bench.report.plots.panel import along
from reformer_bench.report.plots.style import INK, MUTED, NAMED, SMALL, Look
from reformer_bench.report.plots.varied import ATTENTIONS, differences
from reformer_bench.schema.record import Record

_LEAST_COMBINATIONS = 3
_MOST_NAMES = 16
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BELOW = 10.6, 5.0, 1.02, 2.75, 0.65
_RESIDUALS = ("standard", "checkpointed", "reversible")
_LEADER = 13.0
"""Typographic points from which on a line leads from a point to its name."""
_ORDERS = 50
_MIXED, _LOCAL = "mixed", "local"
_STEPS: dict[str, Any] = {"drawstyle": "steps-post", "linewidth": 1.0}
_DOTS: Any = (0, (1, 1.6))
_DASHES: Any = (0, (5, 2))
_NOT_THE_SAME = (
    "Local attention is not the same function as full attention: a token sees its neighbourhood "
    "only, so it is fast and lean for want of work. LSH attention approximates full attention; the "
    "other kinds compute it exactly."
)


@dataclass(frozen=True)
class Spot:
    """One measured variant: where it lies and by what it is told apart."""

    variant: str
    label: str
    time_ms: float
    quartiles_ms: tuple[float, float] | None
    """None where there is one sample."""
    peak_bytes: float
    attention: str
    residual: str
    in_chunks: bool

    @property
    def look(self) -> Look:
        """The look of its kind of attention."""
        return NAMED[self.attention.replace("_", "-")]


def varies_combinations(group: Group) -> bool:
    """Whether a group is a sweep over combinations of switches at one length and size of model.

    Of two switches at least, with more than half of all combinations of their values there.
    """
    if any(record.case.target for record in group.records):
        return False
    models = [record.case.config for record in group.records]
    sizes = ("n_layers", "d_model", "d_ff", "n_heads", "vocab_size", "n_hashes")
    alike = all(len({getattr(model, size) for model in models}) == 1 for size in sizes)
    combinations = {_switches(record) for record in group.records}
    counts = [len(set(values)) for values in zip(*combinations, strict=True)]
    return (
        len(group.lengths) == 1
        and alike
        and sum(count > 1 for count in counts) > 1
        and 2 * len(combinations) > math.prod(counts)
        and len(combinations) == len(group.records)
    )


def spots(group: Group) -> list[Spot]:
    """Return the measured variants of a group."""
    labelled = zip(group.records, differences(group.records, ()), strict=True)
    return [spot for record, label in labelled if (spot := _spot(record, label)) is not None]


def tradeoff_figure(group: Group) -> Figure | None:
    """Draw the combinations: colour and shape say attention, filling the residual, a ring: in
    chunks. The frontiers, with local attention and without, are drawn and named.

    Returns None where too little was measured.
    """
    found = spots(group)
    if len(found) < _LEAST_COMBINATIONS:
        return None
    with_local = any(spot.attention == _LOCAL for spot in found)
    footer = make_footer(group, ["memory"], _WIDTH, [_NOT_THE_SAME] if with_local else [])
    bottom = footer.height + _BELOW
    figure = new_figure(_WIDTH, HEAD + _HEIGHT + bottom)
    ax = new_axes(figure, _LEFT, bottom, _WIDTH - _LEFT - _RIGHT, _HEIGHT)
    _axes(ax, found)
    best = {"": _frontier(found)}
    if with_local:
        rest = [spot for spot in found if spot.attention != _LOCAL]
        best[" without local attention"] = _frontier(rest)
    lines = dict(zip(best, (_DOTS, _DASHES), strict=False))
    for words, spots_on in best.items():
        xs, ys = [s.time_ms for s in spots_on], [s.peak_bytes for s in spots_on]
        ax.plot(xs, ys, color=MUTED, linestyle=lines[words], zorder=2, **_STEPS)
    named = list(dict.fromkeys(spot for spots_on in best.values() for spot in spots_on))
    for spot in found:
        _draw(ax, spot, worth=spot in named)
    for chosen in (found, named, best[""]):
        # As many as have room.
        if len(chosen) <= _MOST_NAMES and _name(ax, found, chosen):
            break
    _legend(ax, found, lines)
    draw_head(figure, "Time of a step against peak memory", group, group.lengths)
    footer.draw(figure)
    return figure


def _switches(record: Record) -> tuple[str, str, bool]:
    model = record.case.config
    return "+".join(model.attention), str(model.residual), model.ff_chunks > 1


def _spot(record: Record, label: str) -> Spot | None:
    step, peak = CaseRow(record).step, record.memory.peak_bytes
    if not (record.finished and record.is_measured) or step is None or peak is None:
        return None
    attention, residual, in_chunks = _switches(record)
    kind = attention if attention in ATTENTIONS else _MIXED
    spread = None if step.iqr is None else (step.lower, step.upper)
    # The switch that is told last stands on a line of its own.
    for word in (" attention", " residual", "in "):
        label = label.replace(word, "")
    label = ",\n".join(label.rsplit(", ", 1))
    return Spot(record.case.variant, label, step.median, spread, peak, kind, residual, in_chunks)


def _frontier(found: Sequence[Spot]) -> list[Spot]:
    by_name = {spot.variant: spot for spot in found}
    options = [Option(spot.variant, spot.peak_bytes, spot.time_ms) for spot in found]
    return [by_name[option.name] for option in frontier(options)]


def _axes(ax: Axes, found: Sequence[Spot]) -> None:
    duration_axis(ax, [time for s in found for time in (s.quartiles_ms or (s.time_ms,))])
    bytes_axis(ax, [spot.peak_bytes for spot in found])
    ax.set_xlabel("time of a step", labelpad=5)
    ax.set_ylabel("peak memory", labelpad=6)
    ax.grid()


def _draw(ax: Axes, spot: Spot, *, worth: bool) -> None:
    look, order = spot.look, 4 if worth else 3
    at = (spot.time_ms, spot.peak_bytes)
    strength = 1.0 if worth else 0.55
    if spot.quartiles_ms is not None:
        spread = [
            [max(0.0, at[0] - spot.quartiles_ms[0])],
            [max(0.0, spot.quartiles_ms[1] - at[0])],
        ]
        ax.errorbar(*at, xerr=spread, fmt="none", ecolor=look.colour, elinewidth=1.0, capsize=2.0,
                    alpha=strength, zorder=order - 0.5)  # fmt: skip
    ax.plot(*at, alpha=strength, zorder=order, **_mark(look, spot.residual))
    if spot.in_chunks:
        ax.plot(*at, alpha=strength, zorder=order, **_ring(look.colour))


def _mark(look: Look, residual: str) -> dict[str, Any]:
    face = "white" if residual == "standard" else look.colour
    fill = "left" if residual == "checkpointed" else "full"
    return {"linestyle": "none", "marker": look.marker, "markersize": 1.35 * look.size,
            "color": look.colour, "markerfacecolor": face, "fillstyle": fill,
            "markerfacecoloralt": "white", "markeredgewidth": 1.2}  # fmt: skip


def _ring(colour: str) -> dict[str, Any]:
    return {"linestyle": "none", "marker": "o", "markersize": 15, "color": colour,
            "fillstyle": "none", "markeredgewidth": 0.8}  # fmt: skip


def _name(ax: Axes, found: Sequence[Spot], named: Sequence[Spot]) -> bool:
    """Write names beside points, clear of all points, frontiers and other names; return False, and
    write none at all, where there is no room.
    """
    unit = ax.figure.dpi / 72
    ring = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * 7 * unit
    points = ax.transData.transform([(spot.time_ms, spot.peak_bytes) for spot in found])
    covered = [at + ring for at in points]
    for steps in ax.get_lines():
        if steps.get_drawstyle() != "default":
            corners = steps.get_transform().transform(steps.get_path().vertices)
            covered += [along(*ends, 4 * unit) for ends in itertools.pairwise(corners)]
    places, texts = [], []
    for spot in named:
        text = ax.text(0, 0, spot.label, fontsize=SMALL, color=spot.look.ink, va="bottom",
                       transform=ax.transAxes, linespacing=1.0, zorder=6)  # fmt: skip
        text.set_path_effects([effects.withStroke(linewidth=2.5, foreground="white")])
        texts.append(text)
        at, size = points[found.index(spot)], np.asarray(text.get_window_extent().size)
        places.append(list(places_around(at, size, unit)))
    chosen = clear_places(places, np.concatenate(covered), ax.get_window_extent(), unit)
    if chosen is None:
        for text in texts:
            text.remove()
        return False
    for text, place in zip(texts, chosen, strict=True):
        # In axes units: a file's resolution may differ from the one that names were placed at.
        x, y = ax.transAxes.inverted().transform(place.box.min)
        text.set_position((float(x), float(y)))
        if place.length >= _LEADER * unit:
            ends = ax.transData.inverted().transform(place.line)
            ax.plot(*ends.T, color=text.get_color(), linewidth=0.6, zorder=2.5)
    return True


@dataclass(frozen=True)
class Place:
    """Where a name may stand, and the line [2, 2] to it from its point, both in display units."""

    box: Bbox
    line: np.ndarray

    @property
    def length(self) -> float:
        """How long the line is."""
        return float(np.hypot(*(self.line[1] - self.line[0])))

    @cached_property
    def path(self) -> Path:
        """The line but for its beginning, which names of one and the same point share."""
        start, end = self.line
        return Path([0.9 * start + 0.1 * end, end])

    def is_clear_of(self, other: Place, gap: float) -> bool:
        """Whether neither name touches the other or its line, and no lines cross."""
        return not (
            self.box.padded(gap).overlaps(other.box)
            or self.path.intersects_bbox(other.box)
            or other.path.intersects_bbox(self.box)
            or self.path.intersects_path(other.path)
        )


def places_around(at: np.ndarray, size: np.ndarray, unit: float) -> Iterator[Place]:
    """Yield places for a name around a point, the nearest first, and of those the rightmost."""
    for distance in (7, 10, 16, 24, 34, 46, 60, 78):
        for angle in sorted(range(-165, 181, 15), key=abs):
            way = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
            # The box grows away from the point: right of it when the angle points right.
            side = np.where(np.abs(way) < 0.2, 0.5, way < 0)
            low = at + distance * unit * way - side * size
            yield Place(Bbox([low, low + size]), np.array([at, np.clip(at, low, low + size)]))


def clear_places(
    places: Sequence[Sequence[Place]], covered: np.ndarray, bounds: Bbox, unit: float
) -> list[Place] | None:
    """Choose a place for each name: within ``bounds``, off the points ``covered`` [n, 2], clear of
    the other names, and as near to its point as may be; None where there is no room.

    Each name takes the first of its places that is clear of those before it. What comes of that
    depends on who chooses first, so several orders are tried.
    """
    inner = bounds.padded(-2 * unit)
    free = [
        [
            place
            for place in found
            if inner.contains(*place.box.min)
            and inner.contains(*place.box.max)
            and not place.box.padded(2 * unit).count_contains(covered)
        ]
        for found in places
    ]
    order, shuffle = list(range(len(free))), random.Random(0).shuffle
    best: dict[int, Place] = {}
    shortest = math.inf
    for _ in range(_ORDERS):
        shuffle(order)
        chosen: dict[int, Place] = {}
        for number in order:
            for place in free[number]:
                if all(place.is_clear_of(other, 2.5 * unit) for other in chosen.values()):
                    chosen[number] = place
                    break
            else:
                break
        length = sum(place.length for place in chosen.values())
        if len(chosen) == len(free) and length < shortest:
            best, shortest = chosen, length
    return [best[number] for number in range(len(free))] if best else None


def _legend(ax: Axes, found: Sequence[Spot], frontiers: dict[str, Any]) -> None:
    kinds = dict.fromkeys(spot.attention for spot in found)
    plain = Look(MUTED, "s")
    handles = [
        Line2D(
            [], [], label=_kind_words(kind), **_mark(NAMED[kind.replace("_", "-")], "reversible")
        )
        for kind in kinds
    ]
    present = {spot.residual for spot in found}
    handles += [
        Line2D([], [], label=f"{name} residual", **_mark(plain, name))
        for name in _RESIDUALS
        if name in present
    ]
    if len({spot.in_chunks for spot in found}) == 2:
        handles.append(Line2D([], [], label="ringed: feed-forward in chunks", **_ring(MUTED)))
    if any(spot.quartiles_ms for spot in found):
        handles.append(Line2D([], [], color=MUTED, linewidth=1.0, label="interquartile range"))
    for words, style in frontiers.items():
        label = "\n".join(wrapped(f"frontier{words}: nothing is both faster and leaner", 30))
        handles.append(Line2D([], [], color=MUTED, linewidth=1.0, linestyle=style, label=label))
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        fontsize=SMALL,
        labelcolor=INK,
        labelspacing=0.75,
    )


def _kind_words(kind: str) -> str:
    words = ATTENTIONS.get(kind, "several kinds of attention")
    return f"{words}\n(not the same function)" if kind == _LOCAL else words
