"""Angular locality-sensitive hashing, from vectors and rotations to buckets; nothing is
kept.

Paper, section 2. N sequences, L length, D head width, R rounds, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reformer_bench.model.pieces import even_pieces
from reformer_bench.model.repeats import repeat
from reformer_bench.model.step import generator

_LARGEST_SINGLE_FACTOR = 64


def bucket_factors(
    n_buckets: int | tuple[int, ...] | None, length: int, chunk_length: int
) -> tuple[int, ...]:
    """Return the even factors that a round hashes with; their product is its number of
    buckets.

    One matrix with L/64 columns would make hashing itself quadratic in L, so more than 64 buckets
    are two hashes combined. None stands for 2 · L / chunk_length buckets, rounded up to a product
    of even factors. One bucket is the empty product.
    """
    if isinstance(n_buckets, tuple):
        return n_buckets
    if n_buckets is not None:
        return () if n_buckets == 1 else (n_buckets,)
    wanted = 2 * math.ceil(length / chunk_length)
    if wanted <= _LARGEST_SINGLE_FACTOR:
        return (wanted,)
    first = 2 ** (int(math.log2(wanted)) // 2)
    return first, 2 * math.ceil(wanted / first / 2)


def draw_rotations(
    n_heads: int,
    d_head: int,
    n_hashes: int,
    factors: tuple[int, ...],
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Draw random directions [H, D, R, Σ factor/2], standard normal, from a seed."""
    shape = (n_heads, d_head, n_hashes, sum(factors) // 2)
    return torch.empty(shape, device=device, dtype=dtype).normal_(generator=generator(seed, device))


def hash_vectors(x_NLD: Tensor, rotations_NDRK: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Return the buckets [N, R, L] int64 of vectors x, in 0 … product(factors) − 1.

    For each factor b the hash is argmax([xR; −xR]) over b directions (paper, section 2).
    """
    n, length, _ = x_NLD.shape
    n_hashes = rotations_NDRK.shape[2]
    buckets = torch.zeros(n, n_hashes, length, dtype=torch.int64, device=x_NLD.device)
    alike = ("hash", x_NLD.shape, x_NLD.stride(), x_NLD.dtype, rotations_NDRK.stride(), factors)
    for r in range(n_hashes):
        repeat(alike, _hash_round, buckets[:, r], x_NLD, rotations_NDRK[:, :, r], factors)
    return buckets


def _hash_round(
    buckets_NL: Tensor, x_NLD: Tensor, rotations_NDK: Tensor, factors: tuple[int, ...]
) -> None:
    """Add one round's buckets to zeros."""
    length, width = x_NLD.shape[1:]
    start, radix = 0, 1
    for factor in factors:
        half = factor // 2
        rotation_NDk = rotations_NDK[:, :, start : start + half]
        # No product is larger than a quarter of the vectors themselves.
        for piece in even_pieces(length, max(1, math.ceil(4 * half / width))):
            side = _strongest_direction(torch.bmm(x_NLD[:, piece], rotation_NDk))
            buckets_NL[:, piece].add_(side, alpha=radix)
        start, radix = start + half, radix * factor


def _strongest_direction(y_NLk: Tensor) -> Tensor:
    """Return argmax over [y; −y], [N, L], without building the concatenation."""
    high, at_high = y_NLk.max(-1)
    low, at_low = y_NLk.min(-1)
    return torch.where(high >= -low, at_high, at_low + y_NLk.shape[-1])
