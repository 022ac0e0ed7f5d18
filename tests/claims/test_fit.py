"""Fits recover known exponents at the stated rate, through noise, fixed parts and censoring."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.claims.fit import LEVEL, Censored, Point, fit_power

LENGTHS = [2.0**power for power in range(9, 17)]


def noisy(exponent: float, noise: float, draw: np.random.Generator, n: int = 8) -> list[Point]:
    return [Point(x, 3.0 * x**exponent * np.exp(draw.normal(0, noise))) for x in LENGTHS[:n]]


@given(st.floats(-2, 3), st.floats(1e-3, 1e3), st.integers(3, 8))
def test_an_exact_power_is_recovered_exactly(exponent, factor, n):
    fit = fit_power([Point(x, factor * x**exponent) for x in LENGTHS[:n]])
    assert fit is not None
    assert fit.exponent == pytest.approx(exponent, abs=1e-6)
    assert fit.factor == pytest.approx(factor, rel=1e-4)
    assert fit.unsettled == ()


@pytest.mark.parametrize("n", [4, 5, 8])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_the_interval_holds_the_exponent_at_its_level(exponent, noise, n):
    draw = np.random.default_rng(5)
    trials = 400
    held = 0
    for _ in range(trials):
        fit = fit_power(noisy(exponent, noise, draw, n))
        assert fit is not None
        assert fit.lower is not None
        assert fit.upper is not None
        held += fit.lower <= exponent <= fit.upper
    # Four standard errors of a share of 90% in 400 trials, and what choosing the range costs.
    assert held / trials == pytest.approx(LEVEL, abs=0.06)


def test_a_fixed_and_a_slower_part_are_left_behind():
    points = [Point(x, 1e6 + 2e3 * x + 4.0 * x**2) for x in LENGTHS]
    fit = fit_power(points)
    assert fit is not None
    assert fit.unsettled
    assert fit.unsettled + fit.points == tuple(points)
    assert len(fit.points) >= 3
    naive = np.polyfit(np.log([p.x for p in points]), np.log([p.y for p in points]), 1)[0]
    assert abs(fit.exponent - 2) < abs(naive - 2)
    assert fit.exponent == pytest.approx(2, abs=0.1)


def test_noise_alone_leaves_nothing_out():
    draw = np.random.default_rng(1)
    fits = [fit_power(noisy(1.0, 0.05, draw)) for _ in range(100)]
    assert sum(bool(fit and fit.unsettled) for fit in fits) < 10


def test_censored_sizes_that_agree_with_the_line_change_nothing():
    points = [Point(x, x**2) for x in LENGTHS[:5]]
    alone = fit_power(points)
    fit = fit_power(points, [Censored(LENGTHS[5], LENGTHS[5] ** 1.9), Censored(LENGTHS[6])])
    assert alone is not None
    assert fit is not None
    assert fit.exponent == alone.exponent
    assert fit.n_pulling == 0
    assert len(fit.censored) == 2


def test_a_censored_size_that_needs_more_raises_the_exponent_to_meet_it():
    points = [Point(x, x) for x in LENGTHS[:4]]
    fit = fit_power(points, [Censored(LENGTHS[4], 16 * LENGTHS[4])])
    assert fit is not None
    assert fit.n_pulling == 1
    assert fit.exponent > 1.3


def test_points_lost_to_a_memory_limit_do_not_bias_the_exponent():
    draw = np.random.default_rng(2)
    limit = 3.0 * LENGTHS[5] ** 2
    exponents = []
    for _ in range(200):
        every = noisy(2.0, 0.1, draw)
        kept = [point for point in every if point.y < limit]
        lost = [Censored(point.x, limit) for point in every if point.y >= limit]
        fit = fit_power(kept, lost)
        assert fit is not None
        exponents.append(fit.exponent)
    assert np.mean(exponents) == pytest.approx(2.0, abs=0.05)


def test_under_a_memory_limit_the_interval_holds_the_exponent_at_its_level_or_more():
    draw = np.random.default_rng(3)
    limit = 3.0 * LENGTHS[5] ** 2
    trials, held, pulled = 300, 0, 0
    for _ in range(trials):
        every = noisy(2.0, 0.1, draw)
        kept = [point for point in every if point.y < limit]
        lost = [Censored(point.x, limit) for point in every if point.y >= limit]
        fit = fit_power(kept, lost)
        assert fit is not None
        assert fit.lower is not None
        assert fit.upper is not None
        held += fit.lower <= 2.0 <= fit.upper
        pulled += fit.n_pulling > 0
    assert pulled > trials / 10
    assert held / trials > LEVEL - 0.06


def test_two_points_have_an_exponent_and_no_interval():
    fit = fit_power([Point(1, 1), Point(2, 4)])
    assert fit is not None
    assert (fit.exponent, fit.lower, fit.upper) == (pytest.approx(2.0), None, None)


def test_one_size_has_no_exponent():
    assert fit_power([]) is None
    assert fit_power([Point(1, 1), Point(1, 2)]) is None


def test_points_on_a_line_leave_no_room_for_another_exponent():
    fit = fit_power([Point(x, 3 * x) for x in LENGTHS])
    assert fit is not None
    assert (fit.lower, fit.upper) == (pytest.approx(1.0), pytest.approx(1.0))


def test_what_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"positive sizes and figures, got y = 0 at 2"):
        fit_power([Point(1, 1), Point(2, 0)])
