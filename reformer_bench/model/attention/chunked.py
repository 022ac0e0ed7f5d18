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
        out_BLGD, normaliser = kernel.forward(Rounds.of(qkv_BLGc, plan, bias, settings))
        ctx.plan, ctx.bias, ctx.settings, ctx.kernel = plan, bias, settings, kernel
        ctx.save_for_backward(qkv_BLGc, out_BLGD, normaliser)
        return out_BLGD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BLGc, out_BLGD, normaliser = ctx.saved_tensors
        rounds = Rounds.of(qkv_BLGc, ctx.plan, ctx.bias, ctx.settings)
        d = ctx.settings.d_head
        dout_PD, out_PD = grads[0].reshape(-1, d), out_BLGD.reshape(-1, d)
        dqkv_Pc = ctx.kernel.backward(rounds, dout_PD, out_PD, normaliser)
        return dqkv_Pc.view_as(qkv_BLGc), None, None, None, None


def chunked_attention(
    qkv_BLGc: Tensor, plan: ChunkPlan, settings: AttentionSettings, kernel: ChunkKernel
) -> Tensor:
    """Return the output [B, L, G, D] of packed rows over a plan for B·G sequences, differentiably,
    in the dtype of the rows.
    """
    bias = Bias.of(plan, settings, wide_dtype(qkv_BLGc.dtype))
    return applied(_ChunkedAttention, qkv_BLGc, plan, bias, settings, kernel)
