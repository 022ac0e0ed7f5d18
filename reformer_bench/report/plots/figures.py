"""Figures of curves, panels of one or several quantities against one size, and figures of bars."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reformer_bench.report.groups import Group
from reformer_bench.report.plots.axes import bar_axis
from reformer_bench.report.plots.captions import (
    HEAD,
    MARGIN,
    Footer,
    draw_head,
    draw_side_legend,
    draw_top_legend,
    make_footer,
    top_legend_height,
)
from reformer_bench.report.plots.curves import (
    Curve,
    Overlap,
    PlotPoint,
    Quantity,
    curve_of,
    has_figure,
    overlaps,
    point_of,
    quantity_name,
)
from reformer_bench.report.plots.panel import (
    STOP_WORDS,
    draw_panel,
    draw_slopes,
    draw_x_axis,
    heights_of,
    sign_handles,
)
from reformer_bench.report.plots.style import (
    DPI,
    FONT_SIZE,
    INK,
    MUTED,
    SMALL,
    Look,
    text_inches,
)
from reformer_bench.report.plots.varied import LENGTH, Picture, all_series
from reformer_bench.report.words import (
    length_name,
    length_words,
    outcome_words,
    rate_noun,
    three_figures,
)
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import format_bytes

_LEFT, _RIGHT, _BETWEEN = 1.02, 0.2, 1.02
_PANEL_TITLE = 0.25
_SIDE_LEGEND = 2.15
"""Inches to the right of a single panel for the names of its curves."""
_SMALL_WIDTH, _SMALL_HEIGHT, _SMALL_BETWEEN = 2.55, 2.3, 0.25


@dataclass(frozen=True)
class Content:
    """The curves of a figure: by quantity, then by facet."""

    picture: Picture
    shown: Mapping[Quantity, Sequence[Sequence[Curve]]]

    @property
    def everything(self) -> list[Curve]:
        """Every curve of every panel."""
        return [one for facets in self.shown.values() for found in facets for one in found]

    @property
    def sizes(self) -> list[int]:
        """Sizes that anything is drawn at; ones without a figure would leave the axis empty."""
        return sorted({point.x for one in self.everything for point in one.points})

    @property
    def labels(self) -> dict[str, str]:
        """Names of the curves that are drawn."""
        drawn = {one.name for one in self.everything if one.points}
        return {name: label for name, label in self.picture.labels.items() if name in drawn}


def content(picture: Picture, quantities: Sequence[Quantity]) -> Content:
    """Return the curves of a picture, of those quantities that have any point."""
    shown = {}
    for quantity in quantities:
        facets = [
            [curve_of(s.name, s.label, s.records, picture.axis.of, quantity) for s in facet.series]
            for facet in picture.facets
        ]
        if any(one.points for found in facets for one in found):
            shown[quantity] = facets
    return Content(picture, shown)


def curves_figure(group: Group, drawn: Content, looks: Mapping[str, Look]) -> Figure:
    """Draw a panel for each quantity, and for each facet where there are several."""
    draw = _small_multiples if len(drawn.picture.facets) > 1 else _row_of_panels
    figure = draw(group, drawn, looks)
    against = drawn.picture.axis.label
    if drawn.picture.axis is LENGTH and length_name(group.records) != "tokens":
        against = "length"
    title = f"{title_of(drawn.shown, rate_noun(group.records))} against {against}"
    draw_head(figure, title, group, group.lengths)
    return figure


def title_of(quantities: Collection[Quantity], noun: str) -> str:
    """Say what a figure of these quantities is called; ``noun`` is what throughput counts."""
    if len(quantities) == 1:
        (name,) = (quantity_name(quantity, noun) for quantity in quantities)
        return f"{name[0].upper()}{name[1:]}"
    return "Memory and throughput" if "throughput" in quantities else "Memory"


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    # A canvas of its own: text must be measured before anything is saved.
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _row_of_panels(group: Group, drawn: Content, looks: Mapping[str, Look]) -> Figure:
    """Draw a panel for each quantity; the names of its curves stand beside a single one, and over
    several.
    """
    n = len(drawn.shown)
    named = len(drawn.labels) > 1
    width = {1: 8.6 if named else 8.2, 2: 10.2}.get(n, 13.0)
    height = 4.1 if n == 1 else 3.9
    footer = _footer(group, drawn, width)
    bottom = footer.height + _below(group)
    top = HEAD if n == 1 else HEAD + top_legend_height(drawn.labels, width)
    right = _SIDE_LEGEND if n == 1 and named else _RIGHT
    figure = new_figure(width, top + height + bottom)
    panel = (width - _LEFT - _BETWEEN * (n - 1) - right) / n
    for number, (found,) in enumerate(drawn.shown.values()):
        ax = new_axes(figure, _LEFT + number * (panel + _BETWEEN), bottom, panel, height)
        draw_x_axis(ax, group, drawn.picture.axis, drawn.sizes)
        taken = draw_panel(ax, found, looks, heights_of(found))
        # Slopes tell of time and memory: in lengths, at one batch.
        if drawn.picture.axis is LENGTH and group.batch is not None:
            draw_slopes(ax, found, taken)
        if n == 1 and named:
            draw_side_legend(ax, found, looks)
    if n > 1:
        draw_top_legend(figure, drawn.labels, looks)
    footer.draw(figure)
    return figure


def _small_multiples(group: Group, drawn: Content, looks: Mapping[str, Look]) -> Figure:
    """Draw a row of panels for each quantity, a panel for each facet, all of a row on one scale."""
    facets = drawn.picture.facets
    columns = min(len(facets), 4)
    rows = -(-len(facets) // columns)
    width = max(8.2, _LEFT + columns * (_SMALL_WIDTH + _SMALL_BETWEEN) - _SMALL_BETWEEN + _RIGHT)
    footer = _footer(group, drawn, width)
    cell = _PANEL_TITLE + _SMALL_HEIGHT + _below(group)
    top = HEAD + top_legend_height(drawn.labels, width)
    figure = new_figure(width, top + len(drawn.shown) * rows * cell + footer.height)
    panel = (width - _LEFT - _RIGHT - (columns - 1) * _SMALL_BETWEEN) / columns
    for block, found in enumerate(drawn.shown.values()):
        shared = heights_of([one for curves in found for one in curves])
        for number, (facet, curves) in enumerate(zip(facets, found, strict=True)):
            row, column = divmod(number, columns)
            bottom = footer.height + _below(group)
            bottom += cell * (len(drawn.shown) * rows - 1 - block * rows - row)
            left = _LEFT + column * (panel + _SMALL_BETWEEN)
            ax = new_axes(figure, left, bottom, panel, _SMALL_HEIGHT)
            draw_x_axis(ax, group, drawn.picture.axis, drawn.sizes)
            draw_panel(ax, curves, looks, shared, has_budgets=False)
            ax.set_title(facet.title, loc="left", fontsize=10, color=INK, pad=5)
            if column:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
    draw_top_legend(figure, drawn.labels, looks)
    footer.draw(figure)
    return figure


def _below(group: Group) -> float:
    """Return the inches of a panel's x axis; batches under the lengths take a line more."""
    return 0.65 if group.batch is not None else 0.85


def _footer(group: Group, drawn: Content, width: float) -> Footer:
    signs = sign_handles(drawn.everything)
    return make_footer(group, drawn.shown, width, _notes(group, drawn), signs)


def _notes(group: Group, drawn: Content) -> list[str]:
    """Say what the panels can't show: hidden curves, what never finished, sizes left out."""
    titles = [facet.title for facet in drawn.picture.facets]
    notes = []
    for facets in drawn.shown.values():
        where: dict[str, list[str]] = {}
        for title, found in zip(titles, facets, strict=True):
            for text in _overlap_words(found):
                where.setdefault(text, []).append(title)
        notes += [
            text + ("" if len(on) == len(titles) else f" ({'; '.join(on)})") + "."
            for text, on in where.items()
        ]
    return [*notes, *_never(group, drawn), *filter(None, [drawn.picture.note])]


def _overlap_words(found: Sequence[Curve]) -> list[str]:
    """Say of each curve that others lie on which ones do, and how near."""
    by_under: dict[str, list[Overlap]] = {}
    for pair in overlaps(found):
        by_under.setdefault(pair.under.label, []).append(pair)
    words = []
    for under, pairs in by_under.items():
        near = "the same as" if all(pair.is_same for pair in pairs) else "within 2% of"
        names = " / ".join(pair.curve.label for pair in pairs)
        name = pairs[0].curve.quantity_name
        words.append(f"{name[0].upper()}{name[1:]} of {names} is {near} that of {under}")
    return words


def _never(group: Group, drawn: Content) -> list[str]:
    """Say which curves have no point in a panel, and why."""
    axis = drawn.picture.axis
    lacking: dict[tuple[str, str], list[str]] = {}
    for facets in drawn.shown.values():
        for facet, curves in zip(drawn.picture.facets, facets, strict=True):
            for one in curves:
                if one.stops and not one.points:
                    stop = one.stops[0]
                    where = ", ".join(filter(None, (axis.words_in(group, stop.x), facet.title)))
                    why = f"{STOP_WORDS[stop.kind]} at {where}"
                    lacking.setdefault((one.label, why), []).append(one.quantity_name)
    return [
        f"{label}: no {' and no '.join(names)} ({why})." for (label, why), names in lacking.items()
    ]


_WIDTH, _BARS_RIGHT, _BARS_BETWEEN, _BELOW = 10.2, 0.35, 0.6, 0.55
_ROW, _LEAST_HEIGHT = 0.34, 0.5
_THICK = 0.62


@dataclass(frozen=True)
class Bar:
    """One variant at the length that bars are drawn of."""

    name: str
    """Its look goes by it."""
    label: str
    record: Record | None
    """None: it was not tried at this length."""

    def point(self, quantity: Quantity) -> PlotPoint | None:
        """Return the figure of a quantity."""
        return None if self.record is None else point_of(self.record, 0, quantity)

    def words(self, quantity: Quantity) -> str:
        """Say the figure, and how the case ended if not well: what stands at the bar's end."""
        found, parts = self.point(quantity), []
        if found is not None:
            show = three_figures if quantity == "throughput" else format_bytes
            parts.append(show(found.value))
        if self.record is not None and not self.record.finished:
            parts.append(outcome_words(self.record))
        return ", ".join(parts) or "not measured"


def bars(group: Group) -> list[Bar]:
    """Return a bar for each variant, at the first length at which anything has a figure."""
    length = min(r.case.length for r in group.records if has_figure(r))
    return [
        Bar(one.name, one.label, group.cell(one.records[0].case.variant, length))
        for one in all_series(group, [])
    ]


def bars_figure(
    group: Group,
    found: Sequence[Bar],
    quantities: Sequence[Quantity],
    looks: Mapping[str, Look],
) -> Figure:
    """Draw a panel for each quantity that some bar has, variants downwards."""
    lengths = {bar.record.case.length for bar in found if bar.record is not None}
    points = [bar.point(quantity) for bar in found for quantity in quantities]
    predicted = any(p is not None and p.is_predicted for p in points)
    notes = ["Hatched bars are predicted, not measured."] if predicted else []
    notes += [
        f"{r.case.variant} at {length_words(r.case.length, group.records)}: {outcome_words(r)}."
        for r in group.records
        if r.outcome.is_stop and r.case.length not in lengths
    ]
    footer = make_footer(group, quantities, _WIDTH, notes)
    bottom, height = footer.height + _BELOW, max(_LEAST_HEIGHT, _ROW * len(found))
    figure = new_figure(_WIDTH, HEAD + height + bottom)
    left = MARGIN + max(text_inches(bar.label, FONT_SIZE) for bar in found) + 0.2
    width = (_WIDTH - left - _BARS_BETWEEN * (len(quantities) - 1) - _BARS_RIGHT) / len(quantities)
    for number, quantity in enumerate(quantities):
        ax = new_axes(figure, left + number * (width + _BARS_BETWEEN), bottom, width, height)
        _draw_bars(ax, quantity, found, looks, rate_noun(group.records))
        if number:
            ax.set_yticklabels([])
    draw_head(figure, title_of(quantities, rate_noun(group.records)), group, lengths)
    footer.draw(figure)
    return figure


def _draw_bars(
    ax: Axes, quantity: Quantity, found: Sequence[Bar], looks: Mapping[str, Look], noun: str
) -> None:
    points = [bar.point(quantity) for bar in found]
    bar_axis(ax, [p.value for p in points if p is not None], is_bytes=quantity != "throughput")
    for row, (bar, p) in enumerate(zip(found, points, strict=True)):
        end = 0.0 if p is None else _draw_bar(ax, row, p, looks[bar.name])
        ax.annotate(bar.words(quantity), (end, row), (4, 0), textcoords="offset points",
                    va="center", fontsize=SMALL,
                    color=MUTED if p is None else INK)  # fmt: skip
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_yticks(range(len(found)), [bar.label for bar in found])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel(quantity_name(quantity, noun), labelpad=5)


def _draw_bar(ax: Axes, row: int, p: PlotPoint, look: Look) -> float:
    """Draw a bar and its spread; return where they end."""
    face, hatch = ("white", "////") if p.is_predicted else (look.colour, None)
    ax.barh(row, p.value, _THICK, color=face, hatch=hatch, edgecolor=look.colour, zorder=2)
    if p.lower is None or p.upper is None:
        return p.value
    spread = [[max(0.0, p.value - p.lower)], [max(0.0, p.upper - p.value)]]
    ax.errorbar(p.value, row, xerr=spread, fmt="none", ecolor=MUTED, capsize=2.5, zorder=3)
    return max(p.value, p.upper)
