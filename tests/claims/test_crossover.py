"""Crossovers of known curves; nothing is extrapolated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.claims.remarks import ahead_all_along, crossover

LENGTHS = [2.0**power for power in range(9, 18)]


@given(at=st.floats(700, 100_000), power=st.floats(0.3, 2.0))
def test_power_laws_cross_where_they_cross(at, power):
    challenger = {x: x for x in LENGTHS}
    other = {x: x * (x / at) ** power for x in LENGTHS}
    found = crossover(challenger, other)
    assert found is not None
    assert found.length == pytest.approx(at, rel=1e-6)
    assert found.between[0] <= at * (1 + 1e-9)
    assert at <= found.between[1] * (1 + 1e-9)


def test_never_winning_and_winning_all_along_cross_nowhere():
    low, high = {x: x for x in LENGTHS}, {x: 2 * x for x in LENGTHS}
    assert crossover(high, low) is None
    assert crossover(low, high) is None
    assert ahead_all_along(low, high)
    assert not ahead_all_along(high, low)


def test_a_lead_that_is_lost_again_does_not_count():
    other = dict.fromkeys((1.0, 2.0, 4.0), 1.0)
    assert crossover({1.0: 2.0, 2.0: 0.5, 4.0: 2.0}, other) is None


def test_only_lengths_that_both_have_count():
    assert crossover({1.0: 2.0, 4.0: 0.5}, {2.0: 1.0}) is None
    assert not ahead_all_along({1.0: 1.0}, {2.0: 5.0})
