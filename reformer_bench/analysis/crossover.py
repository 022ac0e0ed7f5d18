"""Crossovers: the length from which one way of attending takes less than another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Crossover:
    """The length from which the challenger takes less."""

    length: float
    between: tuple[float, float]
    """The two measured lengths between which it lies."""


def crossover(challenger: Mapping[float, float], other: Mapping[float, float]) -> Crossover | None:
    """Find the length from which the challenger's figure stays below the other's.

    Both arguments have figures by length; only lengths that both have count. Between the two
    lengths around the crossover both figures are taken to follow power laws. The result is None
    where the challenger never wins within the measured range, or wins in all of it: nothing is
    extrapolated.
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
    """Whether the challenger takes less at each length that both have."""
    lengths = set(challenger) & set(other)
    return bool(lengths) and all(challenger[x] < other[x] for x in lengths)
