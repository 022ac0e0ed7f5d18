"""The figure of a sweep at one length: time of a step against peak memory, its frontier marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reformer_bench.analysis.frontier import Option, frontier
from reformer_bench.analysis.groups import Group
from reformer_bench.analysis.quantities import is_measured, step_ms
from reformer_bench.report.captions import HEAD, draw_foot, draw_head, foot_height, footnote
from reformer_bench.report.placement import Box, Label, leader, place
from reformer_bench.report.scales import bytes_axis, duration_axis
from reformer_bench.report.style import GRID, INK, MUTED, SMALL, Look, looks
from reformer_bench.report.words import WORKLOADS, split_name
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import format_tokens

DPI = 160
LEAST_VARIANTS = 3
"""Fewer points have no frontier worth drawing."""
_MOST_NAMES = 16

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BELOW = 9.4, 4.6, 1.02, 2.2, 0.65
_MARKERS = {"standard": "o", "checkpointed": "s", "reversible": "D"}
_MIXED = "mixed"
_DOTS: Any = (0, (1, 1.6))


@dataclass(frozen=True)
class Spot:
    """One measured variant: where it lies and by what it is told apart."""

    variant: str
    time_ms: float
    peak_bytes: float
    attention: str
    residual: str
    in_chunks: bool


def spots(group: Group) -> list[Spot]:
    """The measured variants of a group of one length; none of any other."""
    if len(group.lengths) != 1:
        return []
    return [spot for record in group.records if (spot := _spot(record)) is not None]


def tradeoff_figure(group: Group, found: Sequence[Spot]) -> Figure:
    """Colour says attention, shape the residual, hollow: in one piece.

    The frontier is marked where all models are of one size. It has names; where there are few
    points, all have.
    """
    footer = [*footnote(group, ("memory",), _WIDTH)]
    bottom = foot_height(footer, []) + _BELOW
    height = HEAD + _HEIGHT + bottom
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    frame = (_LEFT / _WIDTH, bottom / height)
    ax = figure.add_axes((*frame, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, _HEIGHT / height))
    colours = looks(dict.fromkeys(spot.attention for spot in found))
    _axes(ax, found)
    best = _frontier(found) if _are_alike(group) else []
    ax.plot([s.time_ms for s in best], [s.peak_bytes for s in best], color=MUTED, linewidth=1.0,
            linestyle=_DOTS, drawstyle="steps-post", zorder=2)  # fmt: skip
    names = {spot.variant for spot in best}
    for spot in found:
        worth = not best or spot.variant in names
        _draw(ax, spot, colours[spot.attention], worth=worth)
    few = len(found) <= _MOST_NAMES
    if not (few and _name(ax, found, found, colours)):
        _name(ax, found, best, colours)
    _legend(ax, found, colours, frontier=bool(best))
    length = format_tokens(group.lengths[0])
    draw_head(figure, f"Time against memory at {length} tokens, {WORKLOADS[group.workload]}", group)
    draw_foot(figure, footer, [])
    return figure


def _spot(record: Record) -> Spot | None:
    time, peak = step_ms(record), record.memory.peak_bytes
    if record.outcome is not Outcome.OK or not is_measured(record) or time is None or peak is None:
        return None
    model = record.case.model
    kinds = set(model.attention)
    attention = kinds.pop() if len(kinds) == 1 else _MIXED
    chunked = model.ff_chunks > 1
    return Spot(record.case.variant, time, peak, str(attention), str(model.residual), chunked)


def _are_alike(group: Group) -> bool:
    """Whether the models are of one size, so that a faster one is no smaller one."""
    sizes = ("n_layers", "d_model", "d_ff", "n_heads", "vocab_size", "n_hashes")
    models = [record.case.model for record in group.records]
    return all(len({getattr(model, size) for model in models}) == 1 for size in sizes)


def _frontier(found: Sequence[Spot]) -> list[Spot]:
    by_name = {spot.variant: spot for spot in found}
    options = [Option(spot.variant, spot.peak_bytes, spot.time_ms) for spot in found]
    return [by_name[option.name] for option in frontier(options)]


def _axes(ax: Axes, found: Sequence[Spot]) -> None:
    duration_axis(ax, [spot.time_ms for spot in found])
    bytes_axis(ax, [spot.peak_bytes for spot in found])
    ax.set_xlabel("time of a step", labelpad=5)
    ax.set_ylabel("peak memory", labelpad=6)
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw(ax: Axes, spot: Spot, look: Look, *, worth: bool) -> None:
    face = look.colour if spot.in_chunks else "white"
    ax.plot(spot.time_ms, spot.peak_bytes, linestyle="none", marker=_MARKERS[spot.residual],
            markersize=8 if worth else 5.5, color=look.colour, markerfacecolor=face,
            markeredgewidth=1.6 if worth else 1.1, alpha=1.0 if worth else 0.6,
            zorder=4 if worth else 3)  # fmt: skip


def _name(
    ax: Axes, found: Sequence[Spot], named: Sequence[Spot], colours: Mapping[str, Look]
) -> bool:
    """Names beside points, clear of all others; False, and none at all, where there is no room."""
    unit = ax.figure.dpi / 72
    ring = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) * 4.5 * unit
    places = ax.transData.transform([(spot.time_ms, spot.peak_bytes) for spot in found])
    obstacles = np.concatenate([at + ring for at in places])
    texts, labels = [], []
    for spot in named:
        text = ax.text(0, 0, "\n".join(split_name(spot.variant, 26)), transform=ax.transAxes,
                       fontsize=SMALL, color=colours[spot.attention].ink, va="bottom",
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


def _legend(
    ax: Axes, found: Sequence[Spot], colours: Mapping[str, Look], *, frontier: bool
) -> None:
    handles = [_mark(name.replace("_", "-"), look.colour) for name, look in colours.items()]
    present = {spot.residual for spot in found}
    handles += [_mark(name, MUTED, shape) for name, shape in _MARKERS.items() if name in present]
    if len({spot.in_chunks for spot in found}) == 2:
        handles += [
            _mark("feed-forward in chunks", MUTED),
            _mark("in one piece", MUTED, hollow=True),
        ]
    if frontier:
        label = "frontier: nothing is\nboth faster and leaner"
        handles.append(Line2D([], [], color=MUTED, linewidth=1.0, linestyle=_DOTS, label=label))
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0,
        labelcolor=INK,
    )


def _mark(label: str, colour: str, shape: str = "o", *, hollow: bool = False) -> Line2D:
    face = "white" if hollow else colour
    return Line2D([], [], marker=shape, color=colour, markerfacecolor=face, markersize=7,
                  linestyle="none", label=label)  # fmt: skip
