"""Scaling fits: the power with which a figure grows with a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.90
"""How often an interval holds the true exponent; each end is then a one-sided test at 5%."""
_N_RESAMPLES = 2000
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
    bend: float | None = None
    """By how much the exponent still changes from the first point to the last; None with too few
    points."""

    def at(self, x: float) -> float:
        """Return the figure that the line has at a size."""
        return float(self.factor * x**self.exponent)


def fit_power(
    points: Sequence[Point],
    censored: Sequence[Censored] = (),
    *,
    seed: int = 0,
    n_resamples: int = _N_RESAMPLES,
) -> Fit | None:
    """Fit the exponent of growth by least squares on logarithms; None with fewer than two
    sizes.

    The smallest sizes are left out, down to three points, as long as the exponent bends by more
    than 0.15 over the range and by more than the scatter explains. Censored sizes count only where
    they contradict the line: there the figure is taken to be what it is known to exceed, or what
    the line says if that is more, until both agree. The interval is a studentised parametric
    bootstrap of the residuals, which keeps its level for three points too, at the price of width;
    it rests on the known figures alone, since a figure put in for an unknown one has no scatter.

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
    u, v, n_pulling = _with_censored(used, beyond)
    slope, intercept = _line(u, v)
    known = _logs(used)
    lower, upper = _interval(known[0], slope, _spread(*known, slope, intercept), seed, n_resamples)
    bend = _bend(*known)
    return Fit(
        exponent=slope,
        lower=lower,
        upper=upper,
        factor=float(np.exp(intercept)),
        points=tuple(used),
        unsettled=tuple(ordered[:start]),
        censored=beyond,
        n_pulling=n_pulling,
        bend=None if bend is None else bend[0],
    )


def _logs(points: Sequence[Point]) -> tuple[Array, Array]:
    return np.log([point.x for point in points]), np.log([point.y for point in points])


def _line(u: Array, v: Array) -> tuple[float, float]:
    """Return slope and intercept of the line of least squares."""
    centred = u - u.mean()
    slope = float(centred @ v / (centred @ centred))
    return slope, float(v.mean() - slope * u.mean())


def _spread(u: Array, v: Array, slope: float, intercept: float) -> float:
    """Return the standard deviation of the residuals from a line; 0 for two points."""
    residuals = v - intercept - slope * u
    freedom = len(u) - 2
    return float(np.sqrt(residuals @ residuals / freedom)) if freedom else 0.0


def _settled_from(points: Sequence[Point]) -> int:
    """Return the index of the first point of the range in which one power describes the growth."""
    start = 0
    while len({point.x for point in points[start:]}) > _LEAST_POINTS:
        bend = _bend(*_logs(points[start:]))
        assert bend is not None
        change, error = bend
        if abs(change) <= max(_SETTLED_BEND, 2.5 * error):
            break
        start += 1
    return start


def _bend(u: Array, v: Array) -> tuple[float, float] | None:
    """Return how much the local slope changes over the range, from a parabola, and its standard
    error.

    Three points have a parabola, but no error of it (0); fewer have neither.
    """
    if len(np.unique(u)) < 3:
        return None
    span = float(u.max() - u.min())
    design = np.stack([np.ones_like(u), u - u.mean(), (u - u.mean()) ** 2], axis=1)
    solution, *_ = np.linalg.lstsq(design, v, rcond=None)
    residuals = v - design @ solution
    freedom = len(u) - 3
    error = 0.0
    if freedom:
        inverse = np.linalg.inv(design.T @ design)
        error = float(np.sqrt(residuals @ residuals / freedom * inverse[2, 2]))
    return 2 * float(solution[2]) * span, 2 * error * span


def _with_censored(
    points: Sequence[Point], censored: Sequence[Censored]
) -> tuple[Array, Array, int]:
    """Return logarithms of the points, and of the censored sizes that contradict the line through
    them.
    """
    u, v = _logs(points)
    bounds = [item for item in censored if item.at_least is not None and item.at_least > 0]
    if not bounds:
        return u, v, 0
    at = np.log([item.x for item in bounds])
    least = np.log([float(item.at_least or 0) for item in bounds])
    slope, intercept = _line(u, v)
    pulling = intercept + slope * at < least
    if not pulling.any():
        return u, v, 0
    at, least = at[pulling], least[pulling]
    filled = least
    for _ in range(_MOST_REFITS):
        slope, intercept = _line(np.concatenate([u, at]), np.concatenate([v, filled]))
        refilled = np.maximum(least, intercept + slope * at)
        if np.allclose(refilled, filled, atol=1e-9):
            break
        filled = refilled
    return np.concatenate([u, at]), np.concatenate([v, filled]), len(at)


def _interval(
    u: Array, slope: float, spread: float, seed: int, n_resamples: int
) -> tuple[float | None, float | None]:
    """Return the ends of the bootstrap interval of the slope."""
    if len(u) < 3:
        return None, None
    if spread <= 1e-12:
        return slope, slope
    draw = np.random.default_rng(seed)
    noise = draw.normal(0.0, spread, (n_resamples, len(u)))
    centred = u - u.mean()
    width = centred @ centred
    slopes = noise @ centred / width
    residuals = noise - noise.mean(1, keepdims=True) - slopes[:, None] * centred
    spreads = np.sqrt((residuals**2).sum(1) / (len(u) - 2))
    studentised = slopes / (spreads / np.sqrt(width))
    low, high = np.quantile(studentised, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    error = spread / np.sqrt(width)
    return float(slope - high * error), float(slope - low * error)
