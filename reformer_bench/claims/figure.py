"""The figure of the claims: each fitted growth beside the growth that the paper says."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from reformer_bench.claims.fit import Point
from reformer_bench.claims.judge import (
    TOLERANCE,
    Expectation,
    Finding,
    Judgement,
    Verdict,
    figure_text,
)
from reformer_bench.report.plots.axes import growth_axis, size_axis
from reformer_bench.report.plots.curves import Curve, overlaps
from reformer_bench.report.plots.curves import PlotPoint as DrawnPoint
from reformer_bench.report.plots.figures import new_axes, new_figure
from reformer_bench.report.plots.style import (
    DPI,
    FONT_SIZE,
    GRID,
    INK,
    MUTED,
    SMALL,
    TITLE_SIZE,
    Look,
    drawing,
    looks,
    metadata,
)

_COLUMNS = 3
_CELL_WIDTH = 4.5
_PANEL_LEFT, _PANEL_WIDTH, _PANEL_HEIGHT = 0.8, 3.4, 1.75
_PANEL_TITLE, _PANEL_AXIS, _ENTRY = 0.42, 0.56, 0.33
"""Inches over a panel, under it for its axis, and for each finding below that."""
_HEAD, _FOOT, _FOOT_LINE = 0.72, 0.15, 0.155
_FOOTNOTE = (
    "Each curve as a multiple of its smallest size. Points: figures that the fit rests on; hollow: "
    "smaller sizes left out, as the exponent still changes there; dashed: the fit. Shaded: the "
    "growth that the paper says, give or take a power of 0.25. Memory is that of activations: "
    "parameters, gradients and optimizer state are taken away."
)


@dataclass(frozen=True)
class Panel:
    """Findings of one claim along one axis."""

    judgement: Judgement
    axis: str
    findings: tuple[Finding, ...]
    title: str
    """The claim's; of several panels of one claim, with the axis."""


def panels(judgements: Sequence[Judgement]) -> list[Panel]:
    """Make a panel for each claim and axis along which anything was fitted, in their order."""
    found = []
    for judged in judgements:
        along: dict[str, list[Finding]] = {}
        for one in judged.findings:
            if len(one.evidence.points) > 1:
                along.setdefault(one.evidence.axis, []).append(one)
        for axis, fitted in along.items():
            title = judged.claim.title + (f" in {axis}" if len(along) > 1 else "")
            found.append(Panel(judged, axis, tuple(fitted), title))
    return found


def write_claims_figure(judgements: Sequence[Judgement], where: str, path: Path) -> bool:
    """Draw the fits into a file, in the format that its name ends with; False: nothing is fitted.

    ``where``: what they were measured on.
    """
    found = panels(judgements)
    if not found:
        return False
    file_format = path.suffix[1:]
    with drawing():
        figure = claims_figure(found, where)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=file_format, dpi=DPI, metadata=metadata(file_format))
    return True


def claims_figure(found: Sequence[Panel], where: str) -> Figure:
    """Draw panels in three columns, each with its findings below."""
    rows = [found[start : start + _COLUMNS] for start in range(0, len(found), _COLUMNS)]
    heights = [_cell_height(row) for row in rows]
    width, height = min(len(found), _COLUMNS) * _CELL_WIDTH, _HEAD + sum(heights) + _FOOT
    foot = textwrap.wrap(_FOOTNOTE, int(16 * width))
    figure = new_figure(width, height + _FOOT_LINE * len(foot))
    height = figure.get_size_inches()[1]
    top = height - _HEAD
    for row, cell in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            bottom = top - _PANEL_TITLE - _PANEL_HEIGHT
            left = column * _CELL_WIDTH + _PANEL_LEFT
            _draw(new_axes(figure, left, bottom, _PANEL_WIDTH, _PANEL_HEIGHT), panel)
        top -= cell
    x = 0.2 / width
    figure.text(x, 1 - 0.14 / height, "The paper's claims on growth", fontsize=TITLE_SIZE,
                weight="bold", va="top")  # fmt: skip
    figure.text(x, 1 - 0.42 / height, where, fontsize=FONT_SIZE, color=MUTED, va="top")
    text = figure.text(x, 0.1 / height, "\n".join(foot), fontsize=8.2, color=MUTED, va="bottom")
    text.set_linespacing(1.35)
    return figure


def _cell_height(row: Sequence[Panel]) -> float:
    most = max(len(panel.findings) for panel in row)
    return _PANEL_TITLE + _PANEL_HEIGHT + _PANEL_AXIS + _ENTRY * most


def looks_of(expectations: Sequence[Expectation]) -> list[Look]:
    """Return the look of each expectation, which is its subject's in the plots of runs.

    Where memory and time of one subject stand together, the later one is a variation of it.
    """
    names: list[str] = []
    for expected in expectations:
        name = expected.subject or expected.text
        names.append(f"{name}-time" if name in names else name)
    found = looks(names)
    return [found[name] for name in names]


def _draw(ax: Axes, panel: Panel) -> None:
    """Draw what the paper says, points and fits, and name them below the panel."""
    named = looks_of([one.expectation for one in panel.findings])
    relative = [_relative(one) for one in panel.findings]
    size_axis(ax, [point.x for points in relative for point in points])
    growth_axis(ax, [point.y for points in relative for point in points])
    curves = [
        Curve(one.expectation.text, _name(one), "memory", _drawn(points), ())
        for one, points in zip(panel.findings, relative, strict=True)
    ]
    same_as = {pair.curve: pair.under for pair in overlaps(curves)}
    shaded: set[tuple[float, ...]] = set()
    handles = []
    for order, (one, points, look, curve) in enumerate(
        zip(panel.findings, relative, named, curves, strict=True)
    ):
        _wedge(ax, one, points, look, shaded)
        _curve(ax, one, points, look, 3 + 0.1 * order, 4.0 * (curve in same_as.values()))
        handles.append(_handle(one, look, same_as.get(curve)))
    ax.set_xlabel(panel.axis, labelpad=3)
    ax.set_ylabel("times the smallest", labelpad=4)
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    _title(ax, panel)
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, -_PANEL_AXIS / _PANEL_HEIGHT),
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.4,
        handlelength=1.8,
    )


def _title(ax: Axes, panel: Panel) -> None:
    """Write the claim's name and what became of it."""
    verdict = panel.judgement.verdict
    colour = {Verdict.SUPPORTED: "#00734f", Verdict.REFUTED: "#b3261e"}.get(verdict, MUTED)
    name = _above(ax, panel.title, 0.0, INK, FONT_SIZE, weight="bold")
    width = name.get_window_extent().width / (ax.figure.dpi / 72)
    _above(ax, verdict.value, width + 8, colour, SMALL)


def _above(
    ax: Axes, text: str, right: float, colour: str, size: float, weight: str = "normal"
) -> Annotation:
    """Write text over the panel, ``right`` typographic points from its left edge."""
    return ax.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(right, 7),
        textcoords="offset points",
        va="bottom",
        color=colour,
        fontsize=size,
        fontweight=weight,
    )


def _relative(finding: Finding) -> list[Point]:
    """Return all sizes of a finding, as multiples of the smallest."""
    found = finding.evidence
    points = sorted((*found.unsettled, *found.points), key=lambda point: point.x)
    return [Point(point.x, point.y / points[0].y) for point in points]


def _drawn(points: Sequence[Point]) -> tuple[DrawnPoint, ...]:
    return tuple(DrawnPoint(round(point.x), point.y) for point in points)


def _name(finding: Finding) -> str:
    return finding.expectation.label or finding.expectation.text


def _curve(
    ax: Axes, finding: Finding, points: Sequence[Point], look: Look, order: float, extra: float
) -> None:
    """Draw points and fit, ``extra`` typographic points larger where another curve lies on it."""
    settled = {point.x for point in finding.evidence.points}
    for point in points:
        face = look.colour if point.x in settled else "white"
        ax.plot(point.x, point.y, marker=look.marker, markersize=0.85 * look.size + extra,
                color=look.colour, markerfacecolor=face, zorder=order + 0.05,
                clip_on=False)  # fmt: skip
    exponent = finding.evidence.figure
    assert exponent is not None
    kept = [point for point in points if point.x in settled]
    # Least squares on logarithms goes through the middle of the points.
    middle_x = math.exp(sum(math.log(point.x) for point in kept) / len(kept))
    middle_y = math.exp(sum(math.log(point.y) for point in kept) / len(kept))
    ends = (kept[0].x, kept[-1].x)
    line = [middle_y * (x / middle_x) ** exponent for x in ends]
    ax.plot(ends, line, color=look.colour, linewidth=1.2 + 0.5 * extra,
            linestyle=_fit_dashes(look), zorder=order)  # fmt: skip


def _wedge(
    ax: Axes, finding: Finding, points: Sequence[Point], look: Look, shaded: set[tuple[float, ...]]
) -> None:
    """Shade what the paper says of the settled sizes, from the first of them; what is ``shaded``
    already is not shaded again, or it would be darker."""
    settled = finding.evidence.points
    first = next(point for point in points if point.x == settled[0].x)
    last = settled[-1].x
    low, high = finding.expectation.bounds.low, finding.expectation.bounds.high
    if math.isinf(low):
        # What may fall does so by as much as it may grow, and what must fall by a whole power.
        low = -TOLERANCE if high > 0 else -1.0
    wedge = (first.x, round(first.y, 1), last, low, high)
    if wedge in shaded:
        return
    shaded.add(wedge)
    ends = [first.y * (last / first.x) ** slope for slope in (low, high)]
    ax.fill_between([first.x, last], [first.y, ends[0]], [first.y, ends[1]], color=look.colour,
                    alpha=0.13, linewidth=0, zorder=1)  # fmt: skip


def _handle(finding: Finding, look: Look, under: Curve | None) -> Line2D:
    mark = {True: "", False: ", refuted", None: ", undecided"}[finding.holds]
    bounds = str(finding.expectation.bounds).replace("at most", "≤")
    same = f", the same as {under.label}" if under else ""
    label = f"{_name(finding)}{same}\n{figure_text(finding)}, expected {bounds}{mark}"
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=0.85 * look.size,
                  linestyle=_fit_dashes(look), linewidth=1.2, label=label)  # fmt: skip


def _fit_dashes(look: Look) -> tuple[int, tuple[int, ...]]:
    return (0, (4, 2)) if look.dashes == "-" else (0, (4, 2, 1, 2))
