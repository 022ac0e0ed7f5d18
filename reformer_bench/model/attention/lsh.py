"""LSH attention: sort by bucket, attend inside chunks, add up the rounds (paper, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer_bench.model.attention.chunked import chunked_attention
from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.fused import TritonKernel
from reformer_bench.model.attention.kernels import ChunkKernel
from reformer_bench.model.attention.plan import plan_chunks
from reformer_bench.model.hashing import hash_vectors


def lsh_attention(
    qv_BLGc: Tensor,
    buckets_NRL: Tensor,
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    kernel: ChunkKernel | TritonKernel,
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


def hash_queries(
    qv_BLGc: Tensor, rotations_GDRK: Tensor, factors: tuple[int, ...], d_head: int
) -> Tensor:
    """Return the buckets [B·G, R, L] of packed queries, by the rotations of their heads."""
    batch, length, heads, _ = qv_BLGc.shape
    with torch.no_grad():
        q_NLD = qv_BLGc[..., :d_head].transpose(1, 2).reshape(batch * heads, length, d_head)
        rotations = rotations_GDRK if batch == 1 else rotations_GDRK.repeat(batch, 1, 1, 1)
        return hash_vectors(q_NLD, rotations, factors)
