import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.schema.quartiles import quartiles

TIMES = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=40)


def test_quartiles_of_known_samples() -> None:
    found = quartiles([4.0, 1.0, 3.0, 2.0, 5.0])
    assert found is not None
    assert (found.lower, found.median, found.upper, found.n) == (2.0, 3.0, 4.0, 5)
    assert found.iqr == 2.0
    assert found.relative_iqr == pytest.approx(2 / 3)


def test_no_samples_is_absent_not_zero() -> None:
    assert quartiles([]) is None


def test_one_sample_has_a_median_and_no_spread() -> None:
    found = quartiles([7.0])
    assert found is not None
    assert found.median == 7.0
    assert found.iqr is None
    assert found.relative_iqr is None


@given(TIMES)
def test_quartiles_are_ordered_and_within_the_samples(samples: list[float]) -> None:
    found = quartiles(samples)
    assert found is not None
    ordered = [min(samples), found.lower, found.median, found.upper, max(samples)]
    assert all(a <= b or np.isclose(a, b) for a, b in itertools.pairwise(ordered))


@given(TIMES, st.floats(0.1, 10))
def test_scaling_the_samples_leaves_the_relative_spread(samples: list[float], by: float) -> None:
    one, other = quartiles(samples), quartiles([by * sample for sample in samples])
    assert one is not None
    assert other is not None
    assert other.median == pytest.approx(by * one.median)
    assert other.relative_iqr == (
        None if one.relative_iqr is None else pytest.approx(one.relative_iqr, abs=1e-9)
    )
