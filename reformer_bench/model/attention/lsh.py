"""LSH attention: angular hashing, and attention inside chunks of the order that it gives; and local
attention, which is the same without hash and sort.

Paper, section 2. Hashing goes from vectors and rotations to buckets, and keeps nothing. B batch,
L length, H heads, G heads of one group, N sequences, R rounds, D head width, c packed features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reformer_bench.model.attention.chunked import chunked_attention
from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels import ChunkKernel
from reformer_bench.model.attention.kernels.triton import TritonKernel
from reformer_bench.model.attention.plan import plan_chunks, sequential_plan
from reformer_bench.model.repeats import repeats
from reformer_bench.model.sublayer import generator
from reformer_bench.model.tensors import row_slices

_LARGEST_SINGLE_FACTOR = 64


def bucket_factors(
    n_buckets: int | tuple[int, ...] | None, length: int, chunk_length: int
) -> tuple[int, ...]:
    """Return the even factors that a round hashes with; their product is its number of buckets.

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
    for r in range(n_hashes):
        _hash_round(buckets[:, r], x_NLD, rotations_NDRK[:, :, r], factors)
    return buckets


@repeats
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
        for rows in row_slices(length, max(1, math.ceil(4 * half / width))):
            side = _strongest_direction(torch.bmm(x_NLD[:, rows], rotation_NDk))
            buckets_NL[:, rows].add_(side, alpha=radix)
        start, radix = start + half, radix * factor


def _strongest_direction(y_NLk: Tensor) -> Tensor:
    """Return argmax over [y; −y], [N, L], without building the concatenation."""
    high, at_high = y_NLk.max(-1)
    low, at_low = y_NLk.min(-1)
    return torch.where(high >= -low, at_high, at_low + y_NLk.shape[-1])


def lsh_attention(
    qv_BLGc: Tensor,
    buckets_NRL: Tensor,
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    kernel: ChunkKernel,
) -> Tensor:
    """Return the output [B, L, G, D] of packed shared queries and values, given each round's
    buckets.

    ``buckets`` is [B·G, R, L], integer, with the batch outermost. It is differentiable in ``qv``.
    """
    heads = qv_BLGc.shape[2]
    plan = plan_chunks(
        buckets_NRL,
        settings.chunk_length,
        across_buckets=settings.attend_across_buckets,
        ring=settings.ring,
        valid_NL=None if valid_BL is None else valid_BL.repeat_interleave(heads, 0),
    )
    return chunked_attention(qv_BLGc, plan, settings, kernel)


def hashed_attention(
    qv_BLGc: Tensor,
    rotations_GDRK: Tensor,
    factors: tuple[int, ...],
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    kernel: ChunkKernel,
) -> Tensor:
    """Return the output [B, L, G, D] of packed shared queries and values, hashed by the rotations
    of their heads. It is differentiable in ``qv``.
    """
    if isinstance(kernel, TritonKernel):
        plan = kernel.plan(qv_BLGc.detach(), rotations_GDRK, factors, settings, valid_BL)
        return chunked_attention(qv_BLGc, plan, settings, kernel)
    buckets = hash_queries(qv_BLGc.detach(), rotations_GDRK, factors, settings.d_head)
    return lsh_attention(qv_BLGc, buckets, settings, valid_BL, kernel)


def hash_queries(
    qv_BLGc: Tensor, rotations_GDRK: Tensor, factors: tuple[int, ...], d_head: int
) -> Tensor:
    """Return the buckets [B·G, R, L] of packed queries, by the rotations of their heads."""
    batch, length, heads, _ = qv_BLGc.shape
    with torch.no_grad():
        q_NLD = qv_BLGc[..., :d_head].transpose(1, 2).reshape(batch * heads, length, d_head)
        rotations = rotations_GDRK if batch == 1 else rotations_GDRK.repeat(batch, 1, 1, 1)
        return hash_vectors(q_NLD, rotations, factors)


def local_attention(
    qkv_BLGc: Tensor,
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    kernel: ChunkKernel,
) -> Tensor:
    """Return the output [B, L, G, D] of packed queries, keys and values: LSH's chunks without hash
    or sort.
    """
    batch, length, heads, _ = qkv_BLGc.shape
    valid_NL = None if valid_BL is None else valid_BL.repeat_interleave(heads, 0)
    ring = settings.ring and not settings.causal
    plan = sequential_plan(
        length, settings.chunk_length, qkv_BLGc.device, valid_NL, batch * heads, ring=ring
    )
    return chunked_attention(qkv_BLGc, plan, settings, kernel)
