"""The kernel that is PyTorch's flash attention for the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from reformer_bench.model.attention.kernels.blocks import BlockKernel


@dataclass(frozen=True)
class FlashCpuKernel(BlockKernel):
    """Leaves the scores in cache; the log-normaliser comes along with the output."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return output and log-normaliser of a block."""
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=bias, scale=scale
        )
        return cast(tuple[Tensor, Tensor], found)

    def attend_backward(
        self,
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        out: Tensor,
        normaliser: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values of a block."""
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, k, v, out, normaliser, 0.0, False, attn_mask=bias, scale=scale
        )
        return cast(tuple[Tensor, Tensor, Tensor], found)
