"""Attention over all keys, softmax(QKᵀ/√d)V (paper, section 2), in three ways: with all scores in
memory, a block of queries at a time, and by PyTorch's fused kernels.

B batch, L length, G heads of one group, D head width, c packed features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from reformer_bench.model.attention.common import (
    PADDING_PENALTY,
    AttentionSettings,
    hide_unseen_,
    unpack,
)
from reformer_bench.model.repeats import repeats
from reformer_bench.model.tensors import applied

QUERY_BLOCK = 128
"""How many queries a block of memory-efficient attention has."""
_KEY_STEPS = 16
# Fused kernels want head widths that are multiples of 8.
_EXTRA_FEATURES = 8


def full_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Return the output [B, L, G, D] of packed queries, keys and values; [B, G, L, L] is kept for
    backward.
    """
    q, k, v = unpack(qkv_BLGc, settings)
    scores = (q * settings.scale) @ k.transpose(-1, -2)
    weights = hide_unseen_(scores, settings, valid_BL).softmax(-1)
    return (weights @ v).transpose(1, 2)


class _BlockwiseAttention(torch.autograd.Function):
    """Computes softmax(q kᵀ · scale) v over blocks of queries; keeps output and log-normaliser
    only.
    """

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
        _attend_blocks(_Call(q, k, v, out, normaliser, settings, valid_BL))
        ctx.save_for_backward(q, k, v, out, normaliser)
        ctx.settings, ctx.valid_BL = settings, valid_BL
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, normaliser = ctx.saved_tensors
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk = torch.zeros_like(k, memory_format=torch.contiguous_format)
        dv = torch.zeros_like(v, memory_format=torch.contiguous_format)
        call = _Call(q, k, v, out, normaliser, ctx.settings, ctx.valid_BL)
        _sweep_blocks(call, grads[0], dq, dk, dv)
        return dq, dk, dv, None, None


@dataclass(frozen=True, eq=False)
class _Call:
    """The tensors of one call, [B, G, L, D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    normaliser: Tensor
    """The logarithm of each query's softmax denominator, [B, G, L]."""
    settings: AttentionSettings
    valid_BL: Tensor | None

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield (queries, keys) of each block; causal blocks leave out what none of their queries
        sees.

        What is left out is counted in whole steps of keys, at most _KEY_STEPS in all, so that the
        blocks of a long sequence come in few sizes: 3% more products for shapes that repeat.
        """
        length = self.q.shape[-2]
        step = max(QUERY_BLOCK, -(-length // _KEY_STEPS))
        for start in range(0, length, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, length)
            seen = min(length, -(-end // step) * step) if self.settings.causal else length
            yield slice(start, end), slice(0, seen)

    def scores(self, rows: slice, keys: slice) -> Tensor:
        """Return the scores [B, G, q, k] of a block, lowered where a key isn't seen."""
        scores = (self.q[..., rows, :] * self.settings.scale) @ self.k[..., keys, :].mT
        return hide_unseen_(scores, self.settings, self.valid_BL, first_query=rows.start)


@repeats
def _attend_blocks(call: _Call) -> None:
    """Write output and log-normaliser."""
    for rows, keys in call.blocks():
        _attend_block(call, rows, keys)


@repeats
def _attend_block(call: _Call, rows: slice, keys: slice) -> None:
    scores = call.scores(rows, keys)
    call.normaliser[..., rows] = torch.logsumexp(scores, -1)
    scores.sub_(call.normaliser[..., rows, None]).exp_()
    call.out[..., rows, :] = scores @ call.v[..., keys, :]


@repeats
def _sweep_blocks(call: _Call, dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Write the gradients of queries, and add those of keys and values."""
    for rows, keys in call.blocks():
        _sweep_block(call, rows, keys, dout, dq, dk, dv)


@repeats
def _sweep_block(
    call: _Call, rows: slice, keys: slice, dout: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> None:
    weights = call.scores(rows, keys)
    weights.sub_(call.normaliser[..., rows, None]).exp_()
    do = dout[..., rows, :]
    dv[..., keys, :] += weights.transpose(-1, -2) @ do
    # d softmax: P ∘ (dP − rowsum(dO ∘ O)).
    along = (do * call.out[..., rows, :]).sum(-1, keepdim=True)
    dscores = (do @ call.v[..., keys, :].transpose(-1, -2)).sub_(along).mul_(weights)
    dscores.mul_(call.settings.scale)
    dq[..., rows, :] = dscores @ call.k[..., keys, :]
    dk[..., keys, :] += dscores.transpose(-1, -2) @ call.q[..., rows, :]


def memory_efficient_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Return the output [B, L, G, D] of packed rows; no [L, L] tensor exists."""
    q, k, v = unpack(qkv_BLGc, settings)
    return applied(_BlockwiseAttention, q, k, v, settings, valid_BL).transpose(1, 2)


def sdpa_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Return the output [B, L, G, D] of packed queries, keys and values."""
    q, k, v = unpack(qkv_BLGc, settings)
    if valid_BL is not None:
        q, k, v = _padding_as_feature(q, k, v, settings.scale, valid_BL)
    if settings.shared_qk:
        out = _without_self(q, k, v, settings.scale)
        if valid_BL is not None:
            # A token behind nothing but padding has no other target either.
            alone_BL = valid_BL.cumsum(1) - valid_BL.long() == 0
            out = torch.where(alone_BL[:, None, :, None], v, out)
    else:
        out = scaled_dot_product_attention(q, k, v, is_causal=settings.causal, scale=settings.scale)
    return out[..., : settings.d_head].transpose(1, 2)


def _without_self(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend causally to strictly earlier positions; the first sees itself, having no other.

    Query i + 1 over keys up to i is plain causal attention of queries 1… over keys …L−2, so no mask
    of L × L is needed to leave the diagonal out.
    """
    if q.shape[-2] == 1:
        return v
    later = scaled_dot_product_attention(
        q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], is_causal=True, scale=scale
    )
    return torch.cat([v[..., :1, :], later], dim=-2)


def _padding_as_feature(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a feature that lowers padding keys' scores, since kernels take no causal mask beside one
    of padding.
    """
    constant = torch.zeros(_EXTRA_FEATURES, dtype=q.dtype, device=q.device)
    constant[0] = 1.0
    q = torch.cat([q, constant.expand(*q.shape[:-1], _EXTRA_FEATURES)], -1)
    penalty = (~valid_BL).to(k.dtype) * (-PADDING_PENALTY / scale)
    extra = penalty[:, None, :, None] * constant
    k = torch.cat([k, extra.expand(*k.shape[:-1], _EXTRA_FEATURES)], -1)
    return q, k, pad(v, (0, _EXTRA_FEATURES))
