"""Crossovers: the length from which one way of attending takes less than another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Crossover:
    """Where the challenger starts to take less."""

    length: float
    between: tuple[float, float]
    """The measured lengths on either side."""


def crossover(challenger: Mapping[float, float], other: Mapping[float, float]) -> Crossover | None:
    """The length at which the challenger's figure falls below the other's, for good.

    Figures by length; only lengths that both have count. Between the two lengths around it both
    are taken to follow power laws. None where the challenger never starts to win in that range,
    or wins all along: nothing is extrapolated.
    """
    lengths = sorted(set(challenger) & set(other))
    gaps = [(x, math.log(challenger[x] / other[x])) for x in lengths]
    found = None
    for (before, gap), (after, next_gap) in pairwise(gaps):
        if gap >= 0 > next_gap:
            share = gap / (gap - next_gap)
            at = math.exp(math.log(before) + share * math.log(after / before))
            found = Crossover(at, (before, after))
        elif gap < 0 <= next_gap:
            found = None
    return found


def ahead_all_along(challenger: Mapping[float, float], other: Mapping[float, float]) -> bool:
    """Whether the challenger takes less at every length that both have, and there is one."""
    lengths = set(challenger) & set(other)
    return bool(lengths) and all(challenger[x] < other[x] for x in lengths)
