"""Finds the longest sequence that fits, by a search that asks for few predicted peaks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

STEP = 64
"""Lengths are tried in multiples of this."""
_FIRST = 4096
_CLOSE_ENOUGH = 1 / 256


@dataclass(frozen=True)
class Longest:
    """A length that fits, its peak, and a length just above that doesn't fit."""

    length: int
    peak_bytes: int
    too_long: int | None
    """None where everything up to the limit fits."""
    n_predictions: int


def longest_that_fits(
    peak: Callable[[int], int], budget_bytes: int, limit: int = 2**26
) -> Longest | None:
    """Return the longest multiple of 64 that fits the budget, to 0.4%; None where not even 64 does.

    ``peak(length)`` in bytes must not fall as the length grows. The next length tried is where a
    power law through the nearest two known ones meets the budget, kept inside the bracket, so that
    a dozen lengths do where halving would take twenty.
    """
    known: dict[int, int] = {}

    def fits(length: int) -> bool:
        known[length] = peak(length)
        return known[length] <= budget_bytes

    low, high = 0, limit + STEP
    length = min(_FIRST, limit)
    while True:
        if fits(length):
            low = length
        else:
            high = length
        if high - low <= max(STEP, low * _CLOSE_ENOUGH):
            break
        length = _next(known, budget_bytes, low, high)
    if low == 0:
        return None
    return Longest(low, known[low], high if high <= limit else None, len(known))


def _next(known: dict[int, int], budget_bytes: int, low: int, high: int) -> int:
    """Return where to look next, strictly inside the bracket."""
    guess = _meets(known, budget_bytes, low or high)
    last = max(known) if low else min(known)
    if guess is None:
        guess = 2 * last if low else last // 2
    # On the far side of the guess the bracket closes from both ends.
    margin = max(STEP, int(guess * _CLOSE_ENOUGH / 2))
    guess = guess - margin if guess - margin > low else guess + margin
    if not low < guess < high or len(known) > 20:
        guess = (low + high) // 2
    if high - low <= 2 * STEP:
        return low + STEP
    return min(max(guess // STEP * STEP, low + STEP), high - STEP)


def _meets(known: dict[int, int], budget_bytes: int, near: int) -> int | None:
    """Return where the power law through the two lengths nearest the budget meets it."""
    if len(known) < 2:
        return None
    by_distance = sorted(known, key=lambda n: abs(math.log(known[n] / budget_bytes)))
    a, b = sorted(by_distance[:2])
    if known[a] >= known[b]:
        return None
    power = math.log(known[b] / known[a]) / math.log(b / a)
    # Beyond what is known, no more than fourfold at a time: fixed costs bend the law.
    guess = a * math.exp(min(40.0, math.log(budget_bytes / known[a]) / power))
    return int(min(max(guess, min(known) / 4), max(known) * 16))
