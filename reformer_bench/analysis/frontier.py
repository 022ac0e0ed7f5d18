"""The frontier of time against memory: which ways of running a model are worth choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_TIE = 0.02
"""Figures closer than this are equal: noise and rounding don't make a choice worth offering."""

Source = Literal["measured", "predicted", "estimated"]


@dataclass(frozen=True)
class Option:
    """A way to run a model: what it takes in memory and in time."""

    name: str
    peak_bytes: float
    cost: float
    """Milliseconds or FLOPs; one unit for all options compared."""
    peak_source: Source = "predicted"
    cost_source: Source = "predicted"
    """Measured; estimated from FLOPs at the speed that measured cases reached; or FLOPs alone."""
    ran_out: bool = False
    """Whether it was seen to run out of memory, whatever is predicted."""


def frontier(options: Sequence[Option]) -> list[Option]:
    """Those that no other beats, fastest first; none that ran out of memory.

    One beats another where it is no worse in either figure and better by 2% in one.
    """
    usable = [option for option in options if not option.ran_out]
    return sorted(
        (one for one in usable if not any(beats(other, one) for other in usable)),
        key=lambda option: (option.cost, option.peak_bytes),
    )


def beats(one: Option, other: Option) -> bool:
    """Whether nobody would choose the other."""
    no_worse = one.peak_bytes <= other.peak_bytes and one.cost <= other.cost
    better = one.peak_bytes < (1 - _TIE) * other.peak_bytes or one.cost < (1 - _TIE) * other.cost
    return no_worse and better


def fits(option: Option, budget_bytes: float) -> bool:
    """Whether its peak is within the budget, and it was not seen to run out of memory."""
    return option.peak_bytes <= budget_bytes and not option.ran_out


def fastest_within(options: Sequence[Option], budget_bytes: float) -> Option | None:
    """The one of least cost whose peak is within the budget; None where none is.

    Costs within 2% of the least are equal, and of equals the leanest is taken.
    """
    fitting = [option for option in options if fits(option, budget_bytes)]
    least = min((option.cost for option in fitting), default=0.0)
    equals = [option for option in fitting if option.cost * (1 - _TIE) <= least]
    return min(equals, key=lambda option: option.peak_bytes, default=None)
