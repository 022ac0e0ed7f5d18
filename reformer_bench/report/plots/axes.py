"""Logarithmic axes with ticks people read: lengths and bytes in powers of two, rates in ten."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
)

from reformer_bench.schema.units import GIB, format_bytes, format_tokens

BUDGETS = (16 * GIB, 24 * GIB, 40 * GIB, 80 * GIB)
"""Memory of common accelerators."""

_POINTS_PER_LENGTH = 38.0
_MOST_BYTE_TICKS = 9
_MOST_SIZE_TICKS = 6
_MOST_GROWTH_TICKS = 6
_EVERY = 99
"""More ticks than any axis has, so that matplotlib leaves none out."""


def length_axis(ax: Axes, lengths: Sequence[int], width_points: float) -> None:
    """Set ticks at powers of two; as many have labels as there is room for in ``width_points``."""
    low, high = float(min(lengths)), float(max(lengths))
    if high < 2 * low:
        low, high = low / 1.5, high * 1.5
    ax.set_xscale("log", base=2)
    pad = (high / low) ** 0.035
    ax.set_xlim(low / pad, high * pad)
    powers = _powers_of_two(*ax.get_xlim())
    step = math.ceil(len(powers) / max(1, int(width_points / _POINTS_PER_LENGTH)))
    # 1K, 4K, ..., 1M: counted from 1K so that all plots label the same lengths.
    labelled = [2**power for power in powers if (power - 10) % max(1, step) == 0]
    _set_ticks(ax.xaxis, FixedLocator(labelled), _binary(), lambda n: format_tokens(round(n)))


def bytes_axis(ax: Axes, values: Sequence[float]) -> None:
    """Set ticks at powers of two (then four, sixteen) of bytes; no more than nine have labels."""
    low, high = min(values), max(values)
    ax.set_yscale("log", base=2)
    # Room above for a card that is nearly full.
    top = max([high * 1.35, *(1.2 * b for b in BUDGETS if high <= b < 1.6 * high)])
    ax.set_ylim(low / 1.5, max(top, 4 * low))
    n = len(_powers_of_two(*ax.get_ylim()))
    step = next(s for s in (1, 2, 4, 8, 16) if n / s <= _MOST_BYTE_TICKS)
    _set_ticks(ax.yaxis, _binary(step), _binary(), format_bytes)


def growth_axis(ax: Axes, multiples: Sequence[float]) -> None:
    """Set ticks at powers of two (four, ...) of multiples: ½×, 1×, 2×."""
    ax.set_yscale("log", base=2)
    ax.set_ylim(min(min(multiples) / 1.25, 0.5), max(max(multiples) * 1.25, 4.0))
    step = math.ceil(len(_powers_of_two(*ax.get_ylim())) / _MOST_GROWTH_TICKS)
    _set_ticks(ax.yaxis, _binary(step), _binary(), lambda multiple: f"{multiple:g}×")


def rate_axis(ax: Axes, values: Sequence[float]) -> None:
    """Set ticks at powers of ten, with 2 and 5 between on an axis of less than two decades."""
    low, high = min(values), max(values)
    ax.set_yscale("log")
    ax.set_ylim(low / 1.4, max(high * 1.4, 4 * low))
    bottom, top = ax.get_ylim()
    labelled = _decimal(1, 2, 5) if math.log10(top / bottom) < 2.4 else _decimal(1)
    _set_ticks(ax.yaxis, labelled, _decimal(*range(1, 10)), rate_tick)


def duration_axis(ax: Axes, milliseconds: Sequence[float]) -> None:
    """Set ticks at 1, 2 and 5 of each power of ten: 50 ms, 2 s."""
    low, high = min(milliseconds), max(milliseconds)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.3, max(high * 1.3, 4 * low))
    _set_ticks(ax.xaxis, _decimal(1, 2, 5), NullLocator(), _duration_tick)


def size_axis(ax: Axes, sizes: Sequence[float], show: Callable[[int], str] = format_tokens) -> None:
    """Set ticks at the sizes themselves, every other one where they are many: 512, 2K, 8K."""
    every = sorted(set(sizes))
    ax.set_xscale("log", base=2)
    pad = max((every[-1] / every[0]) ** 0.06, 1.05)
    ax.set_xlim(every[0] / pad, every[-1] * pad)
    labelled = every[:: math.ceil(len(every) / _MOST_SIZE_TICKS)]
    _set_ticks(ax.xaxis, FixedLocator(labelled), FixedLocator(every), lambda size: show(int(size)))


def bar_axis(ax: Axes, values: Sequence[float], *, is_bytes: bool) -> None:
    """Start at zero, with ticks at multiples of a power of two of bytes, else at round numbers."""
    # Room beyond the longest bar for its figure.
    ax.set_xlim(0, 1.3 * max(values))
    show = format_bytes if is_bytes else rate_tick
    ax.xaxis.set_major_locator(
        MultipleLocator(2 ** round(math.log2(max(values) / 4)))
        if is_bytes
        else MaxNLocator(4, steps=[1, 2, 5, 10])
    )
    ax.xaxis.set_major_formatter(lambda value, _: show(value) if value else "0")


def budget_lines(ax: Axes) -> list[Text]:
    """Draw a line at each common accelerator's memory that the axis reaches; return their names."""
    bottom, top = ax.get_ylim()
    names: list[Text] = []
    for budget in BUDGETS:
        if bottom < budget < top:
            ax.axhline(budget, color="#9a9a9a", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            name = ax.annotate(
                f"{format_bytes(budget)} card",
                (0.0, budget),
                xycoords=("axes fraction", "data"),
                xytext=(4, 2),
                textcoords="offset points",
                fontsize=8,
                color="#777777",
            )
            names.append(name)
    return names


def rate_tick(tokens_per_second: float) -> str:
    """Write a throughput as axes show it: 500, 20k, 1M (powers of ten)."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tokens_per_second >= size:
            return f"{tokens_per_second / size:g}{unit}"
    return f"{tokens_per_second:g}"


def _duration_tick(milliseconds: float) -> str:
    """Write a duration as axes show it: 50 ms, 2 s."""
    return f"{milliseconds / 1e3:g} s" if milliseconds >= 1e3 else f"{milliseconds:g} ms"


def _powers_of_two(low: float, high: float) -> range:
    """Return the exponents of the powers of two from ``low`` to ``high``."""
    return range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)


def _binary(step: int = 1) -> Locator:
    """Locate ticks at every power of two, or at one in ``step`` of them."""
    return LogLocator(base=2**step, numticks=_EVERY)


def _decimal(*digits: int) -> Locator:
    """Locate ticks at some digits of each power of ten."""
    return LogLocator(base=10, subs=digits, numticks=_EVERY)


def _set_ticks(axis: Axis, labelled: Locator, others: Locator, show: Callable[[Any], str]) -> None:
    """Set ticks with labels, and smaller ones without between them."""
    axis.set_major_locator(labelled)
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axis.set_minor_locator(others)
    axis.set_minor_formatter(NullFormatter())
