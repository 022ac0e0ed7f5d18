"""Angular hashing: the formula, its factors, and that neighbours share buckets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.model.attention.lsh import bucket_factors, draw_rotations, hash_vectors


def _rotations(factors, n_hashes=2, heads=3, width=8, seed=0):
    return draw_rotations(heads, width, n_hashes, factors, seed, torch.device("cpu"), torch.float64)


@settings(deadline=None, max_examples=40)
@given(
    factors=st.lists(st.integers(1, 6).map(lambda k: 2 * k), min_size=1, max_size=3),
    length=st.integers(1, 70),
)
def test_buckets_are_argmax_over_both_signs_of_each_factor(factors, length):
    x = torch.randn(3, length, 8, dtype=torch.float64)
    rotations = _rotations(tuple(factors))
    found = hash_vectors(x, rotations, tuple(factors))
    wanted = torch.zeros(3, 2, length, dtype=torch.int64)
    start, radix = 0, 1
    for factor in factors:
        y = torch.einsum("nld,ndrk->nrlk", x, rotations[..., start : start + factor // 2])
        wanted += radix * torch.cat([y, -y], -1).argmax(-1)
        start, radix = start + factor // 2, radix * factor
    assert torch.equal(found, wanted)
    assert found.max() < math.prod(factors)


def test_the_same_seed_gives_the_same_rotations_and_another_other_ones():
    assert torch.equal(_rotations((4, 8), seed=1), _rotations((4, 8), seed=1))
    assert not torch.equal(_rotations((4, 8), seed=1), _rotations((4, 8), seed=2))


def test_length_of_a_vector_does_not_change_its_bucket():
    x = torch.randn(3, 50, 8, dtype=torch.float64)
    rotations = _rotations((16,))
    assert torch.equal(hash_vectors(x, rotations, (16,)), hash_vectors(9 * x, rotations, (16,)))


def test_near_vectors_share_a_bucket_more_often_than_far_ones():
    torch.manual_seed(0)
    x = torch.randn(1, 4000, 8, dtype=torch.float64)
    rotations = _rotations((8,), n_hashes=1, heads=1)
    base = hash_vectors(x, rotations, (8,))

    def share(noise):
        moved = x + noise * torch.randn_like(x)
        return (hash_vectors(moved, rotations, (8,)) == base).double().mean()

    assert share(0.05) > share(0.5) > share(5.0)


@pytest.mark.parametrize(
    ("length", "chunk_length", "factors"),
    [
        (1, 64, (2,)),
        (64, 64, (2,)),
        (1024, 64, (32,)),
        (16384, 64, (16, 32)),
        (1 << 20, 64, (128, 256)),
    ],
)
def test_automatic_buckets_are_twice_the_chunks(length, chunk_length, factors):
    assert bucket_factors(None, length, chunk_length) == factors


@given(length=st.integers(1, 2**21), chunk_length=st.integers(1, 512))
def test_automatic_factors_are_even_and_cover_what_is_wanted(length, chunk_length):
    factors = bucket_factors(None, length, chunk_length)
    wanted = 2 * math.ceil(length / chunk_length)
    assert all(factor % 2 == 0 for factor in factors)
    assert wanted <= math.prod(factors) < 2 * wanted + 2
    # Hashing must not become quadratic: the work for a vector stays near the root of the buckets.
    assert sum(factors) <= max(64, 6 * math.isqrt(wanted))


def test_one_bucket_puts_everything_together():
    assert bucket_factors(1, 100, 8) == ()
    assert hash_vectors(torch.randn(1, 5, 8), torch.empty(1, 8, 2, 0), ()).eq(0).all()
