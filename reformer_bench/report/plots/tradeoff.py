"""The figure of all combinations at one length: time of a step against peak memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reformer_bench.report.frames import CaseRow
from reformer_bench.report.frontier import Option, frontier
from reformer_bench.report.groups import Group
from reformer_bench.report.plots.axes import bytes_axis, duration_axis
from reformer_bench.report.plots.captions import HEAD, draw_head, foot, wrapped
from reformer_bench.report.plots.figures import new_axes, new_figure
from reformer_bench.report.plots.labels import Box, Label, leader, place
from reformer_bench.report.plots.style import GRID, INK, MUTED, NAMED, SMALL, Look
from reformer_bench.report.plots.varied import ATTENTIONS, differences
from reformer_bench.schema.record import Record

_LEAST_COMBINATIONS = 3
_MOST_NAMES = 16
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BELOW = 10.6, 5.0, 1.02, 2.75, 0.65
_RESIDUALS = ("standard", "checkpointed", "reversible")
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
        """That of its kind of attention."""
        return NAMED[self.attention.replace("_", "-")]


def varies_combinations(group: Group) -> bool:
    """Whether a group is a sweep over combinations of switches at one length and size of model.

    Of two switches at least, with more than half of all combinations of their values there.
    """
    models = [record.case.model for record in group.records]
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
    """The measured variants of a group."""
    models = [record.case.model for record in group.records]
    labelled = zip(group.records, differences(models, ()), strict=True)
    return [spot for record, label in labelled if (spot := _spot(record, label)) is not None]


def tradeoff_figure(group: Group) -> Figure | None:
    """Colour and shape say attention, filling the residual, a ring: in chunks. The frontiers, with
    local attention and without, are drawn and named. None where too little was measured.
    """
    found = spots(group)
    if len(found) < _LEAST_COMBINATIONS:
        return None
    with_local = any(spot.attention == _LOCAL for spot in found)
    below = foot(group, ("memory",), _WIDTH, [_NOT_THE_SAME] if with_local else [])
    bottom = below.height + _BELOW
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
    below.draw(figure)
    return figure


def _switches(record: Record) -> tuple[str, str, bool]:
    model = record.case.model
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
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


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
    """Names beside points, clear of all others; False, and none at all, where there is no room."""
    unit = ax.figure.dpi / 72
    ring = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * 7 * unit
    places = ax.transData.transform([(spot.time_ms, spot.peak_bytes) for spot in found])
    obstacles = np.concatenate([at + ring for at in places])
    for steps in ax.get_lines():
        if steps.get_drawstyle() != "default":
            obstacles = np.concatenate([obstacles, _along(steps, unit)])
    texts, labels = [], []
    for spot in named:
        text = ax.text(0, 0, spot.label, transform=ax.transAxes,
                       fontsize=SMALL, color=spot.look.ink, va="bottom",
                       linespacing=1.0, zorder=6)  # fmt: skip
        text.set_path_effects([effects.withStroke(linewidth=2.5, foreground="white")])
        size = text.get_window_extent()
        x, y = ax.transData.transform((spot.time_ms, spot.peak_bytes))
        texts.append(text)
        labels.append(Label(float(x), float(y), size.width, size.height))
    bounds = Box(*ax.get_window_extent().extents).padded(-2 * unit)
    boxes = place(labels, obstacles, [], bounds, unit)
    if boxes is None:
        for text in texts:
            text.remove()
        return False
    for text, label, box in zip(texts, labels, boxes, strict=True):
        x, y = ax.transAxes.inverted().transform((box.x0, box.y0))
        text.set_position((float(x), float(y)))
        line = leader(label, box, unit)
        if line is not None:
            ends = ax.transData.inverted().transform([line[:2], line[2:]])
            ax.plot(*ends.T, color=text.get_color(), linewidth=0.6, zorder=2.5)
    return True


def _along(line: Line2D, unit: float) -> np.ndarray:
    """Points [n, 2] along a frontier's steps, in display units."""
    corners = line.get_transform().transform(line.get_path().vertices)
    points = [corners]
    for start, end in itertools.pairwise(corners):
        t = np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / (4 * unit))))[:, None]
        points.append(start * (1 - t) + end * t)
    return np.concatenate(points)


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
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0,
        labelcolor=INK,
        labelspacing=0.75,
    )


def _kind_words(kind: str) -> str:
    words = ATTENTIONS.get(kind, "several kinds of attention")
    return f"{words}\n(not the same function)" if kind == _LOCAL else words
