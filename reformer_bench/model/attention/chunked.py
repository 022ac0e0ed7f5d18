"""Attention over a chunk plan, as a differentiable function of packed rows.

B batch, L length, G heads of one group, N = B·G sequences, P = B·L·G rows, D head width, c packed
features of a head: query and value (shared QK), or query, key and value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels.rounds import (
    ChunkKernel,
    Rounds,
    sees_only_itself,
    wide_dtype,
)
from reformer_bench.model.attention.plan import Bias, ChunkPlan
from reformer_bench.model.tensors import applied


class _ChunkedAttention(torch.autograd.Function):
    """Keeps the packed input, the output with its log-normaliser, and the integers of the plan."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_BLGc: Tensor,
        plan: ChunkPlan,
        bias: Bias,
        settings: AttentionSettings,
        kernel: ChunkKernel,
    ) -> Tensor:
        out_BLGD, normaliser_NL = kernel.forward(Rounds.of(qkv_BLGc, plan, bias, settings))
        ctx.plan, ctx.bias, ctx.settings, ctx.kernel = plan, bias, settings, kernel
        ctx.save_for_backward(qkv_BLGc, out_BLGD, normaliser_NL)
        return out_BLGD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BLGc, out_BLGD, normaliser_NL = ctx.saved_tensors
        rounds = Rounds.of(qkv_BLGc, ctx.plan, ctx.bias, ctx.settings)
        dqkv_Pc = _backward(rounds, ctx.kernel, grads[0], out_BLGD, normaliser_NL)
        return dqkv_Pc.view_as(qkv_BLGc), None, None, None, None


def _backward(
    rounds: Rounds, kernel: ChunkKernel, dout_BLGD: Tensor, out_BLGD: Tensor, normaliser_NL: Tensor
) -> Tensor:
    """Return the gradient [P, c] of the packed rows."""
    d = rounds.settings.d_head
    dout_PD, out_PD = dout_BLGD.reshape(-1, d), out_BLGD.reshape(-1, d)
    dqkv_Pc = torch.zeros_like(rounds.qkv_Pc, dtype=rounds.wide_dtype)
    if rounds.settings.shared_qk:
        # A token with no target but itself: its output is its value, exactly, whatever the
        # rounding of a normaliser near the penalty.
        alone_NL = sees_only_itself(normaliser_NL)
        normaliser_NL = normaliser_NL.masked_fill(alone_NL, torch.inf)
        share_NL = alone_NL.to(rounds.wide_dtype)
        weights_NL = rounds.self_weights(alone_NL)
        if weights_NL is not None:
            share_NL.mul_(weights_NL)
        dqkv_Pc[:, d:].addcmul_(dout_PD, rounds.by_row(share_NL)[:, None])
    kernel.backward(rounds, dout_PD, out_PD, normaliser_NL, dqkv_Pc)
    return dqkv_Pc.to(rounds.qkv_Pc.dtype)


def chunked_attention(
    qkv_BLGc: Tensor, plan: ChunkPlan, settings: AttentionSettings, kernel: ChunkKernel
) -> Tensor:
    """Return the output [B, L, G, D] of packed rows over a plan for B·G sequences, differentiably,
    in the dtype of the rows.
    """
    bias = Bias.of(plan, settings, wide_dtype(qkv_BLGc.dtype))
    return applied(_ChunkedAttention, qkv_BLGc, plan, bias, settings, kernel)
