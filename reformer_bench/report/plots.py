"""Figures of a run: peak memory and throughput against length, alone and side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reformer_bench.analysis.groups import Group, group_records
from reformer_bench.report.captions import (
    HEAD,
    draw_foot,
    draw_head,
    draw_side_legend,
    draw_top_legend,
    foot_height,
    footnote,
    legend_columns,
)
from reformer_bench.report.curves import Curve, Quantity, curves
from reformer_bench.report.guides import draw_guides
from reformer_bench.report.panel import draw_panel, label_ends, obstacles
from reformer_bench.report.placement import Box
from reformer_bench.report.style import Look, drawing, looks, metadata
from reformer_bench.report.tradeoff import LEAST_VARIANTS, spots, tradeoff_figure
from reformer_bench.report.words import WORKLOADS
from reformer_bench.spec.record import Record

FORMATS = ("png", "svg", "pdf")
DPI = 160

_TITLES = {"memory": "Peak memory", "throughput": "Throughput"}
_MOST_NAMES = 8
"""More curves than this have names in a legend: beside the curves they would crowd."""
_AXIS_LEFT = 1.02
_AXIS_BELOW = 0.65
_BETWEEN = 0.95
_QUANTITIES: tuple[Quantity, ...] = ("memory", "throughput")


def write_plots(
    records: Iterable[Record],
    out_dir: Path,
    formats: Sequence[str] = ("png", "svg"),
    quantity: Literal["memory", "throughput", "both"] = "both",
) -> list[Path]:
    """Draw every group of records into ``out_dir``; returns the files, none if nothing is there.

    ``train_step-memory.png``, ``train_step-throughput.png`` and so on, and with both quantities an
    ``overview`` of each workload; a sweep at one length gives a ``tradeoff``, time of a step
    against peak memory. Equal records give equal files. Raises ValueError for an unknown
    format or quantity.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"format {unknown[0]!r} is not one of {', '.join(FORMATS)}")
    if quantity not in (*_QUANTITIES, "both"):
        raise ValueError(f"quantity {quantity!r} is not one of memory, throughput, both")
    records = list(records)
    variants = looks(record.case.variant for record in records)
    groups = group_records(records)
    wanted = _QUANTITIES if quantity == "both" else (quantity,)
    written: list[Path] = []
    with drawing():
        for group, stem in zip(groups, _stems(groups), strict=True):
            if quantity == "both" and len(found_spots := spots(group)) >= LEAST_VARIANTS:
                # Against one length there is nothing to draw.
                figure = tradeoff_figure(group, found_spots)
                written += _save(figure, out_dir, f"{stem}-tradeoff", formats)
                continue
            shown = {name: curves(group, name) for name in wanted}
            shown = {name: found for name, found in shown.items() if _has_points(found)}
            figures = {
                f"{stem}-{name}": single_figure(group, name, found, variants)
                for name, found in shown.items()
            }
            if len(shown) == 2:
                name = "overview" if len(groups) == 1 else f"overview-{stem}"
                figures[name] = overview_figure(group, shown, variants)
            for name, figure in figures.items():
                written += _save(figure, out_dir, name, formats)
    return written


def single_figure(
    group: Group, quantity: Quantity, found: Sequence[Curve], variants: Mapping[str, Look]
) -> Figure:
    """One panel with the variants named at the ends of their curves, or in a legend."""
    width, right, height = 8.2, 1.75, 4.1
    footer = footnote(group, (quantity,), width)
    bottom = foot_height(footer, found) + _AXIS_BELOW
    figure = _figure(width, HEAD + height + bottom)
    ax = _axes(figure, _AXIS_LEFT, bottom, width - _AXIS_LEFT - right, height)
    taken = draw_panel(ax, found, variants, quantity, _lengths(found))
    frame, edge = ax.get_window_extent(), 0.08 * DPI
    bounds = Box(frame.x0, frame.y0, figure.bbox.width - edge, frame.y1 + edge)
    names = None
    if len(found) <= _MOST_NAMES:
        names = label_ends(ax, found, variants, bounds.padded(-3), taken)
    if names is None:
        draw_side_legend(figure, ax, [curve.variant for curve in found], variants)
    draw_guides(ax, quantity, obstacles(ax, found), [*taken, *(names or [])])
    draw_head(figure, f"{_TITLES[quantity]}, {WORKLOADS[group.workload]}", group)
    draw_foot(figure, footer, found)
    return figure


def overview_figure(
    group: Group, shown: Mapping[Quantity, Sequence[Curve]], variants: Mapping[str, Look]
) -> Figure:
    """Both quantities side by side under one legend."""
    width, right, height = 10.2, 0.2, 3.9
    curves_shown = [curve for found in shown.values() for curve in found]
    named = list(dict.fromkeys(curve.variant for curve in curves_shown))
    rows = -(-len(named) // legend_columns(named))
    footer = footnote(group, _QUANTITIES, width)
    bottom, top = foot_height(footer, curves_shown) + _AXIS_BELOW, HEAD + 0.22 * rows + 0.12
    figure = _figure(width, top + height + bottom)
    panel = (width - _AXIS_LEFT - _BETWEEN - right) / 2
    for number, (quantity, found) in enumerate(shown.items()):
        left = _AXIS_LEFT + number * (panel + _BETWEEN)
        ax = _axes(figure, left, bottom, panel, height)
        taken = draw_panel(ax, found, variants, quantity, _lengths(curves_shown))
        draw_guides(ax, quantity, obstacles(ax, found), taken)
    draw_top_legend(figure, named, variants)
    draw_head(figure, f"Peak memory and throughput, {WORKLOADS[group.workload]}", group)
    draw_foot(figure, footer, curves_shown)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    # A canvas of its own: text must be measured before anything is saved.
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _lengths(found: Sequence[Curve]) -> list[int]:
    """Lengths that anything is drawn at; ones that were only skipped would leave the axis empty."""
    points = [point.length for curve in found for point in curve.points]
    return points + [stop.length for curve in found for stop in curve.stops]


def _has_points(found: Sequence[Curve]) -> bool:
    return any(curve.points for curve in found)


def _stems(groups: Sequence[Group]) -> list[str]:
    """File names of groups: the workload, and whatever else tells groups of it apart."""
    stems = []
    for group in groups:
        alike = [other for other in groups if other.workload == group.workload]
        stem = group.workload
        for field, prefix in (("suite", ""), ("device", ""), ("batch", "batch"), ("seed", "seed")):
            if len({getattr(other, field) for other in alike}) > 1:
                value = getattr(group, field)
                stem += f"-{prefix}{'varies' if value is None else value}".replace(":", "")
        stems.append(stem)
    return stems


def _save(figure: Figure, out_dir: Path, name: str, formats: Sequence[str]) -> list[Path]:
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for file_format in formats:
        path = out_dir / f"{name}.{file_format}"
        figure.savefig(path, format=file_format, dpi=DPI, metadata=metadata(file_format))
        paths.append(path)
    return paths
