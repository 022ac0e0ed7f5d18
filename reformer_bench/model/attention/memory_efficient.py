"""Full attention for one block of queries at a time, recomputed in the backward pass.

Memory is proportional to length (paper, section 2, "memory-efficient attention").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.attention.common import AttentionSettings, hide_unseen_, unpack

QUERY_BLOCK = 128


class _BlockwiseAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale) v over blocks of queries; keeps output and log-normaliser only."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        settings: AttentionSettings,
        valid_BL: Tensor | None,
    ) -> Tensor:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        normaliser = q.new_empty(q.shape[:-1])
        for rows, keys in _blocks(q.shape[-2], settings.causal):
            scores = _scores(q, k, settings, valid_BL, rows, keys)
            normaliser[..., rows] = torch.logsumexp(scores, -1)
            scores.sub_(normaliser[..., rows, None]).exp_()
            out[..., rows, :] = scores @ v[..., keys, :]
        ctx.save_for_backward(q, k, v, out, normaliser)
        ctx.settings, ctx.valid_BL = settings, valid_BL
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, normaliser = ctx.saved_tensors
        dout, settings = grads[0], ctx.settings
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk = torch.zeros_like(k, memory_format=torch.contiguous_format)
        dv = torch.zeros_like(v, memory_format=torch.contiguous_format)
        for rows, keys in _blocks(q.shape[-2], settings.causal):
            weights = _scores(q, k, settings, ctx.valid_BL, rows, keys)
            weights.sub_(normaliser[..., rows, None]).exp_()
            do = dout[..., rows, :]
            dv[..., keys, :] += weights.transpose(-1, -2) @ do
            # d softmax: P ∘ (dP − rowsum(dO ∘ O)).
            along = (do * out[..., rows, :]).sum(-1, keepdim=True)
            dscores = (do @ v[..., keys, :].transpose(-1, -2)).sub_(along).mul_(weights)
            dscores.mul_(settings.scale)
            dq[..., rows, :] = dscores @ k[..., keys, :]
            dk[..., keys, :] += dscores.transpose(-1, -2) @ q[..., rows, :]
        return dq, dk, dv, None, None


def _blocks(length: int, causal: bool) -> list[tuple[slice, slice]]:
    """(queries, keys they can see) of each block."""
    starts = range(0, length, QUERY_BLOCK)
    ends = [min(start + QUERY_BLOCK, length) for start in starts]
    return [
        (slice(start, end), slice(0, end if causal else length))
        for start, end in zip(starts, ends, strict=True)
    ]


def _scores(
    q: Tensor,
    k: Tensor,
    settings: AttentionSettings,
    valid_BL: Tensor | None,
    rows: slice,
    keys: slice,
) -> Tensor:
    scores = (q[..., rows, :] * settings.scale) @ k[..., keys, :].transpose(-1, -2)
    return hide_unseen_(scores, settings, valid_BL, first_query=rows.start)


def memory_efficient_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Output [B, L, G, D] of packed queries, keys and values; no [L, L] tensor exists."""
    q, k, v = unpack(qkv_BLGc, settings)
    return _BlockwiseAttention.apply(q, k, v, settings, valid_BL).transpose(1, 2)
