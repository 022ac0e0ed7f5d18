"""The frontier of time against memory: the ways of running a model that are worth choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_TIE = 0.02
"""Figures that differ by less than this count as equal: so little is no reason to choose."""

Source = Literal["measured", "predicted", "estimated"]


@dataclass(frozen=True)
class Option:
    """A way to run a model, with the memory and the time it takes."""

    name: str
    peak_bytes: float
    cost: float
    """Milliseconds or FLOPs; all options that are compared have the same unit."""
    peak_source: Source = "predicted"
    cost_source: Source = "predicted"
    """Where the cost comes from: it was measured, was estimated from FLOPs, or is FLOPs."""
    ran_out: bool = False
    """Whether it ran out of memory when it was measured, whatever is predicted."""


def frontier(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other option beats, fastest first.

    One option beats another where it is no worse in memory and in time, and better by 2% in one of
    them. Options that ran out of memory are left out.
    """
    usable = [option for option in options if not option.ran_out]
    return sorted(
        (one for one in usable if not any(beats(other, one) for other in usable)),
        key=lambda option: (option.cost, option.peak_bytes),
    )


def beats(one: Option, other: Option) -> bool:
    """Whether one option is so much better that nobody would choose the other."""
    no_worse = one.peak_bytes <= other.peak_bytes and one.cost <= other.cost
    better = one.peak_bytes < (1 - _TIE) * other.peak_bytes or one.cost < (1 - _TIE) * other.cost
    return no_worse and better


def fits(option: Option, budget_bytes: float) -> bool:
    """Whether the peak is within the budget, and the option was not seen to run out of memory."""
    return option.peak_bytes <= budget_bytes and not option.ran_out


def fastest_within(options: Sequence[Option], budget_bytes: float) -> Option | None:
    """Return the option of least cost whose peak is within the budget; None where there
    is none.

    Of options that cost no more than 2% above the least, the one with the smallest peak is taken.
    """
    fitting = [option for option in options if fits(option, budget_bytes)]
    least = min((option.cost for option in fitting), default=0.0)
    equals = [option for option in fitting if option.cost * (1 - _TIE) <= least]
    return min(equals, key=lambda option: option.peak_bytes, default=None)
