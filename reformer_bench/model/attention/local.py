"""Local attention: each chunk of neighbours sees itself and the chunk before it.

With a ring, the first chunk sees the last one, which matters only where later tokens may be seen.
"""

from __future__ import annotations

from torch import Tensor

from reformer_bench.model.attention.chunked import chunked_attention
from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.fused import TritonKernel
from reformer_bench.model.attention.kernels import ChunkKernel
from reformer_bench.model.attention.plan import sequential_plan


def local_attention(
    qkv_BLGc: Tensor,
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    kernel: ChunkKernel | TritonKernel,
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
