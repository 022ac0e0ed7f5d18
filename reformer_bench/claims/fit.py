"""Scaling fits: the power with which a figure grows with a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.90
"""How often an interval holds the true exponent; each end is then a one-sided test at 5%."""
_SETTLED_BEND = 0.15
_LEAST_POINTS = 3
_MOST_REFITS = 100


@dataclass(frozen=True)
class Point:
    """A figure y at a size x, both positive."""

    x: float
    y: float


@dataclass(frozen=True)
class Censored:
    """A size whose figure isn't known, because the case ran out of memory or time."""

    x: float
    at_least: float | None = None
    """What the figure is known to exceed; None where nothing is known."""


@dataclass(frozen=True)
class Fit:
    """The power law y = factor · x^exponent, and the points it was fitted to."""

    exponent: float
    lower: float | None
    """The ends of the 90% interval; None for two points, which have no scatter to judge by."""
    upper: float | None
    factor: float
    points: tuple[Point, ...]
    """The points that the fit rests on, by x."""
    unsettled: tuple[Point, ...] = ()
    """The smallest sizes, left out because the exponent still changes there."""
    censored: tuple[Censored, ...] = ()
    n_pulling: int = 0
    """How many censored sizes made the fit steeper, because the line through the points was too low
    there."""


def fit_power(points: Sequence[Point], censored: Sequence[Censored] = ()) -> Fit | None:
    """Fit the exponent of growth by least squares on logarithms; None with fewer than two
    sizes.

    The smallest sizes are left out, down to three points, as long as the exponent bends by more
    than 0.15 over the range and by more than the scatter explains. Censored sizes count only where
    they contradict the line: there the figure is taken to be what it is known to exceed, or what
    the line says if that is more, until both agree. The interval is Student's t of the scatter
    around the line, which keeps its level for three points too, at the price of width; it rests on
    the known figures alone, since a figure put in for an unknown one has no scatter.

    Raises ValueError where a size or a figure isn't positive.
    """
    for point in points:
        if not (point.x > 0 and point.y > 0):
            raise ValueError(f"expected positive sizes and figures, got y = {point.y} at {point.x}")
    ordered = sorted(points, key=lambda point: point.x)
    if len({point.x for point in ordered}) < 2:
        return None
    start = _settled_from(ordered)
    used = ordered[start:]
    beyond = tuple(sorted(censored, key=lambda item: item.x))
    u, v = _logs(used)
    slope, intercept, n_pulling = _line_with_censored(u, v, beyond)
    half = _half_interval(u, v - intercept - slope * u)
    return Fit(
        exponent=slope,
        lower=None if half is None else slope - half,
        upper=None if half is None else slope + half,
        factor=float(np.exp(intercept)),
        points=tuple(used),
        unsettled=tuple(ordered[:start]),
        censored=beyond,
        n_pulling=n_pulling,
    )


def _logs(points: Sequence[Point]) -> tuple[Array, Array]:
    return np.log([point.x for point in points]), np.log([point.y for point in points])


def _settled_from(points: Sequence[Point]) -> int:
    """Return the index of the first point of the range in which one power describes the growth."""
    start = 0
    while len({point.x for point in points[start:]}) > _LEAST_POINTS:
        change, error = _bend(*_logs(points[start:]))
        if abs(change) <= max(_SETTLED_BEND, 2.5 * error):
            break
        start += 1
    return start


def _bend(u: Array, v: Array) -> tuple[float, float]:
    """Return how much the local slope changes over a range of four points or more, from a
    parabola, and its standard error.
    """
    span = float(u.max() - u.min())
    design = np.stack([np.ones_like(u), u - u.mean(), (u - u.mean()) ** 2], axis=1)
    solution, *_ = np.linalg.lstsq(design, v, rcond=None)
    residuals = v - design @ solution
    inverse = np.linalg.inv(design.T @ design)
    error = float(np.sqrt(residuals @ residuals / (len(u) - 3) * inverse[2, 2]))
    return 2 * float(solution[2]) * span, 2 * error * span


def _line_with_censored(
    u: Array, v: Array, censored: Sequence[Censored]
) -> tuple[float, float, int]:
    """Return slope and intercept of the line through the points and through the censored sizes
    that contradict them, and how many of these there are.
    """
    slope, intercept = _line(u, v)
    bounds = [(item.x, item.at_least) for item in censored if item.at_least]
    at, least = np.log(np.reshape(bounds, (-1, 2)).astype(float)).T
    pulling = intercept + slope * at < least
    if not pulling.any():
        return slope, intercept, 0
    at, least = at[pulling], least[pulling]
    filled = least
    for _ in range(_MOST_REFITS):
        slope, intercept = _line(np.concatenate([u, at]), np.concatenate([v, filled]))
        refilled = np.maximum(least, intercept + slope * at)
        if np.allclose(refilled, filled, atol=1e-9):
            break
        filled = refilled
    return slope, intercept, len(at)


def _line(u: Array, v: Array) -> tuple[float, float]:
    """Return slope and intercept of the line of least squares."""
    found = stats.linregress(u, v)
    return float(found.slope), float(found.intercept)


def _half_interval(u: Array, residuals: Array) -> float | None:
    """Return half the width of the slope's interval; None for two points.

    Where censored sizes made the line steeper, the residuals are larger than those of linregress,
    whose own standard error would be of another line.
    """
    freedom = len(u) - 2
    if not freedom:
        return None
    error = np.linalg.norm(residuals) / np.sqrt(freedom) / np.linalg.norm(u - u.mean())
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * error)
