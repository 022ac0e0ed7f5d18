"""What the panels of the claims' figure are called, and what their curves are in other plots."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from reformer_bench.claims.fit import Point
from reformer_bench.claims.judge import TOLERANCE, Finding, Outcome, Verdict, figure_text
from reformer_bench.claims.paper import bounds_text
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

TITLES = {
    "quadratic-full": "Full attention grows as L²",
    "linear-lsh": "LSH attention grows as L",
    "depth-free": "Reversible layers make depth free",
    "ff-chunks": "Chunks take d_ff out of the peak",
    "table-3": "Table 3: memory",
    "flat-speed": "At fixed tokens LSH time is flat",
    "more-hashes": "Hash rounds approach full attention",
    "deep-64k": "20 layers at 64K tokens",
    "swap-params": "Swapped parameters leave the device",
}
"""What a panel is called, in plain words, by its claim's id."""
_SUBJECTS = (
    (r"memory-efficient attention", "memory-efficient"),
    (r"full attention", "full"),
    (r"LSH attention", "lsh"),
    (r"(\d+) hash round", r"lsh-\1"),
    (r"reversible stack", "reversible"),
    (r"residual stack", "standard"),
    (r"without chunks", "whole"),
    (r"in chunks", "chunked"),
    (r"chunked reversible,", "chunked-reversible-transformer"),
    (r"reversible,", "reversible-transformer"),
    (r"transformer,", "transformer"),
    (r"LSH,", "lsh-transformer"),
    (r"reformer,", "reformer"),
    (r"layers at 64K", "small"),
    (r"swapping", "swapped"),
)
"""What an expectation is about, by the name that this has in the plots of runs."""


def looks_of(texts: Sequence[str]) -> dict[str, Look]:
    """The look of each expectation: its subject's in the plots of runs.

    Where memory and time of one subject stand together, the later one is a variation of it.
    """
    stems: dict[str, str] = {}
    for text in texts:
        matches = ((re.search(words, text), stem) for words, stem in _SUBJECTS)
        stem = next((match.expand(stem) for match, stem in matches if match), text)
        stems[text] = f"{stem}-time" if stem in stems.values() else stem
    found = looks(stems.values())
    return {text: found[stem] for text, stem in stems.items()}


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

    verdict: Verdict
    axis: str
    findings: tuple[Finding, ...]


def panels(verdicts: Sequence[Verdict]) -> list[Panel]:
    """A panel for each claim and axis along which anything was fitted, in the claims' order."""
    found = []
    for verdict in verdicts:
        fitted = [one for one in verdict.findings if _is_fitted(one)]
        for axis in dict.fromkeys(one.expectation.axis for one in fitted):
            along = tuple(one for one in fitted if one.expectation.axis == axis)
            found.append(Panel(verdict, axis, along))
    return found


def write_claims_figure(verdicts: Sequence[Verdict], where: str, path: Path) -> bool:
    """Draw the fits into a file, in the format that its name ends with; False: nothing is fitted.

    ``where``: what they were measured on.
    """
    found = panels(verdicts)
    if not found:
        return False
    file_format = path.suffix[1:]
    with drawing():
        figure = claims_figure(found, where)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=file_format, dpi=DPI, metadata=metadata(file_format))
    return True


def claims_figure(found: Sequence[Panel], where: str) -> Figure:
    """Panels in three columns, each with its findings below."""
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


def _is_fitted(finding: Finding) -> bool:
    return finding.expectation.unit == "exponent" and len(finding.points) > 1


def _draw(ax: Axes, panel: Panel) -> None:
    named = looks_of([one.expectation.text for one in panel.findings])
    curves = [(one, _relative(one)) for one in panel.findings]
    xs = [point.x for _, points in curves for point in points]
    ys = [point.y for _, points in curves for point in points]
    size_axis(ax, xs)
    growth_axis(ax, ys)
    shaded: set[tuple[float, ...]] = set()
    pairs = overlaps([_as_curve(finding, points) for finding, points in curves])
    for order, (finding, points) in enumerate(curves):
        text = finding.expectation.text
        extra = 4.0 * any(pair.under.label == text for pair in pairs)
        _wedge(ax, finding, points, named[text], shaded)
        _curve(ax, finding, points, named[text], 3 + 0.1 * order, extra)
    ax.set_xlabel(panel.axis, labelpad=3)
    ax.set_ylabel("times the smallest", labelpad=4)
    ax.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    _title(ax, panel)
    on = {pair.curve.label: pair.under.label.partition(",")[0] for pair in pairs}
    handles = [
        _handle(one, named[one.expectation.text], on.get(one.expectation.text))
        for one in panel.findings
    ]
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


def _title_words(panel: Panel) -> str:
    """What the panel shows; of several of one claim, along which axis."""
    along = {one.expectation.axis for one in panel.verdict.findings if _is_fitted(one)}
    return TITLES[panel.verdict.claim.id] + (f" in {panel.axis}" if len(along) > 1 else "")


def _title(ax: Axes, panel: Panel) -> None:
    """The claim's name and what became of it."""
    outcome = panel.verdict.outcome
    colour = {Outcome.SUPPORTED: "#00734f", Outcome.REFUTED: "#b3261e"}.get(outcome, MUTED)
    name = _above(ax, _title_words(panel), 0.0, INK, FONT_SIZE, weight="bold")
    width = name.get_window_extent().width / (ax.figure.dpi / 72)
    _above(ax, outcome.value, width + 8, colour, SMALL)


def _above(
    ax: Axes, text: str, right: float, colour: str, size: float, weight: str = "normal"
) -> Annotation:
    """Text over the panel, ``right`` typographic points from its left edge."""
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
    """All sizes of a finding, as multiples of the smallest."""
    points = sorted((*finding.unsettled, *finding.points), key=lambda point: point.x)
    return [Point(point.x, point.y / points[0].y) for point in points]


def _as_curve(finding: Finding, points: Sequence[Point]) -> Curve:
    text = finding.expectation.text
    drawn = tuple(DrawnPoint(round(point.x), point.y) for point in points)
    return Curve(text, text, "memory", drawn, ())


def _curve(
    ax: Axes, finding: Finding, points: Sequence[Point], look: Look, order: float, extra: float
) -> None:
    """Points and the fit; ``extra`` typographic points larger where another curve lies on it."""
    settled = {point.x for point in finding.points}
    for point in points:
        face = look.colour if point.x in settled else "white"
        ax.plot(point.x, point.y, marker=look.marker, markersize=0.85 * look.size + extra,
                color=look.colour, markerfacecolor=face, zorder=order + 0.05,
                clip_on=False)  # fmt: skip
    assert finding.figure is not None
    kept = [point for point in points if point.x in settled]
    # Least squares on logarithms goes through the middle of the points.
    middle_x = math.exp(sum(math.log(point.x) for point in kept) / len(kept))
    middle_y = math.exp(sum(math.log(point.y) for point in kept) / len(kept))
    ends = (kept[0].x, kept[-1].x)
    line = [middle_y * (x / middle_x) ** finding.figure for x in ends]
    ax.plot(ends, line, color=look.colour, linewidth=1.2 + 0.5 * extra,
            linestyle=_fit_dashes(look), zorder=order)  # fmt: skip


def _bounds(finding: Finding) -> tuple[float, float]:
    """Slopes between which the paper's growth lies; what may fall at will, by as much as it grows
    at most, and what must fall, by a whole power."""
    low, high = finding.expectation.low, finding.expectation.high
    return (low, high) if math.isfinite(low) else (-TOLERANCE if high > 0 else -1.0, high)


def _wedge(
    ax: Axes, finding: Finding, points: Sequence[Point], look: Look, shaded: set[tuple[float, ...]]
) -> None:
    """What the paper says of the settled sizes, from the first of them; what is ``shaded``
    already is not shaded again, or it would be darker."""
    first = next(point for point in points if point.x == finding.points[0].x)
    last = finding.points[-1].x
    bounds = _bounds(finding)
    wedge = (first.x, round(first.y, 1), last, *bounds)
    if wedge in shaded:
        return
    shaded.add(wedge)
    ends = [first.y * (last / first.x) ** slope for slope in bounds]
    ax.fill_between([first.x, last], [first.y, ends[0]], [first.y, ends[1]], color=look.colour,
                    alpha=0.13, linewidth=0, zorder=1)  # fmt: skip


def _handle(finding: Finding, look: Look, on: str | None) -> Line2D:
    mark = {True: "", False: ", refuted", None: ", undecided"}[finding.holds]
    bounds = bounds_text(finding.expectation).replace("at most", "≤")
    same = f", the same as {on}" if on else ""
    name = finding.expectation.text.partition(", memory in")[0]
    label = f"{name}{same}\n{figure_text(finding)}, expected {bounds}{mark}"
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=0.85 * look.size,
                  linestyle=_fit_dashes(look), linewidth=1.2, label=label)  # fmt: skip


def _fit_dashes(look: Look) -> tuple[int, tuple[int, ...]]:
    return (0, (4, 2)) if look.dashes == "-" else (0, (4, 2, 1, 2))
