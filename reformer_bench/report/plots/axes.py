"""Logarithmic axes with ticks people read: lengths and bytes in powers of two, rates in ten."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
)

from reformer_bench.schema.units import GIB, format_bytes, format_tokens

BUDGETS = (16 * GIB, 24 * GIB, 40 * GIB, 80 * GIB)
"""Memory of common accelerators."""

_POINTS_PER_LENGTH = 38.0
_MOST_BYTE_TICKS = 9
_MOST_SIZE_TICKS = 6
_MOST_GROWTH_TICKS = 6


def length_axis(ax: Axes, lengths: Sequence[int], width_points: float) -> None:
    """Ticks at powers of two of an axis ``width_points`` wide, as many as have room for a label."""
    low, high = float(min(lengths)), float(max(lengths))
    if high < 2 * low:
        low, high = low / 1.5, high * 1.5
    ax.set_xscale("log", base=2)
    pad = (high / low) ** 0.035
    ax.set_xlim(low / pad, high * pad)
    powers = range(math.ceil(math.log2(low / pad)), math.floor(math.log2(high * pad)) + 1)
    room = max(1, int(width_points / _POINTS_PER_LENGTH))
    step = max(1, math.ceil(len(powers) / room))
    # 1K, 4K, ..., 1M: counted from 1K so that all plots label the same lengths.
    labelled = [2**power for power in powers if (power - 10) % step == 0]
    _set_ticks(ax.xaxis, labelled, [2**power for power in powers], format_tokens)


def bytes_axis(ax: Axes, values: Sequence[float]) -> None:
    """Ticks at powers of two (then four, sixteen) of bytes; no more than nine have labels."""
    low, high = min(values), max(values)
    ax.set_yscale("log", base=2)
    # Room above for a card that is nearly full.
    top = max([high * 1.35, *(1.2 * b for b in BUDGETS if high <= b < 1.6 * high)])
    ax.set_ylim(low / 1.5, max(top, 4 * low))
    bottom, top = ax.get_ylim()
    powers = range(math.ceil(math.log2(bottom)), math.floor(math.log2(top)) + 1)
    step = next(s for s in (1, 2, 4, 8, 16) if len(powers) / s <= _MOST_BYTE_TICKS)
    labelled = [2**power for power in powers if power % step == 0]
    _set_ticks(ax.yaxis, labelled, [2**power for power in powers], format_bytes)


def rate_axis(ax: Axes, values: Sequence[float]) -> None:
    """Ticks at powers of ten, with 2 and 5 between where the axis spans less than two decades."""
    low, high = min(values), max(values)
    ax.set_yscale("log")
    ax.set_ylim(low / 1.4, max(high * 1.4, 4 * low))
    bottom, top = ax.get_ylim()
    decades = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    digits = (1, 2, 5) if math.log10(top / bottom) < 2.4 else (1,)
    labelled = [digit * 10.0**power for power in decades for digit in digits]
    minor = [digit * 10.0**power for power in decades for digit in range(1, 10)]
    inside = [tick for tick in labelled if bottom <= tick <= top]
    _set_ticks(ax.yaxis, inside, [t for t in minor if bottom <= t <= top], rate_tick)


def duration_axis(ax: Axes, milliseconds: Sequence[float]) -> None:
    """Ticks at 1, 2 and 5 of each power of ten: 50 ms, 2 s."""
    low, high = min(milliseconds), max(milliseconds)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.3, max(high * 1.3, 4 * low))
    left, right = ax.get_xlim()
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if left <= tick <= right]
    _set_ticks(ax.xaxis, inside, inside, _duration_tick)


def size_axis(ax: Axes, sizes: Sequence[float], show: Callable[[int], str] = format_tokens) -> None:
    """Ticks at the sizes themselves, every other one where they are many: 512, 2K, 8K."""
    every = sorted(set(sizes))
    ax.set_xscale("log", base=2)
    pad = max((every[-1] / every[0]) ** 0.06, 1.05)
    ax.set_xlim(every[0] / pad, every[-1] * pad)
    step = math.ceil(len(every) / _MOST_SIZE_TICKS)
    _set_ticks(ax.xaxis, every[::step], every, lambda size: show(int(size)))


def growth_axis(ax: Axes, multiples: Sequence[float]) -> None:
    """Ticks at powers of two (four, ...) of multiples: ½×, 1×, 2×."""
    low, high = min(multiples), max(multiples)
    ax.set_yscale("log", base=2)
    ax.set_ylim(min(low / 1.25, 0.5), max(high * 1.25, 4.0))
    bottom, top = ax.get_ylim()
    powers = range(math.ceil(math.log2(bottom)), math.floor(math.log2(top)) + 1)
    step = math.ceil(len(powers) / _MOST_GROWTH_TICKS)
    labelled = [2.0**power for power in powers if power % step == 0]
    _set_ticks(ax.yaxis, labelled, [2.0**power for power in powers], lambda m: f"{m:g}×")


def bar_axis(ax: Axes, values: Sequence[float], *, is_bytes: bool) -> None:
    """From zero, with ticks at whole multiples of a power of two of bytes, else at round ones."""
    # Room beyond the longest bar for its figure.
    ax.set_xlim(0, 1.3 * max(values))
    locator = (
        MultipleLocator(2 ** round(math.log2(max(values) / 4)))
        if is_bytes
        else MaxNLocator(4, steps=[1, 2, 5, 10])
    )
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(lambda value, _: _amount(value, is_bytes=is_bytes))


def rate_tick(tokens_per_second: float) -> str:
    """Write a throughput as axes show it: 500, 20k, 1M (powers of ten)."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tokens_per_second >= size:
            return f"{tokens_per_second / size:g}{unit}"
    return f"{tokens_per_second:g}"


def _duration_tick(milliseconds: float) -> str:
    """Write a duration as axes show it: 50 ms, 2 s."""
    return f"{milliseconds / 1e3:g} s" if milliseconds >= 1e3 else f"{milliseconds:g} ms"


def _amount(value: float, *, is_bytes: bool) -> str:
    return "0" if value == 0 else format_bytes(value) if is_bytes else rate_tick(value)


def budget_lines(ax: Axes) -> list[Text]:
    """A thin line at each common accelerator's memory that the axis reaches; returns the names."""
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


def _set_ticks(
    axis: Axis, labelled: Sequence[Any], every: Sequence[Any], show: Callable[[Any], str]
) -> None:
    axis.set_major_locator(FixedLocator(list(labelled)))
    axis.set_major_formatter(FixedFormatter([show(tick) for tick in labelled]))
    axis.set_minor_locator(FixedLocator([tick for tick in every if tick not in labelled]))
    axis.set_minor_formatter(NullFormatter())
