"""Attention of each chunk's queries over its own and the previous chunk's keys.

J chunks of a block, N sequences, C chunk length, D head width; queries are [J, N, C, D], keys and
values [J, N, 2C, D], bias [J, N, C, 2C]. The backward pass takes the output and log-normaliser of
all rounds together: exp(score − normaliser) is then each key's share of the combined softmax, and
the gradients are those of the combination (paper, section 2, multi-round attention).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from reformer_bench.spec.model import LshKernel


class ChunkKernel(Protocol):
    """A way to compute attention inside chunks."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Output [J, N, C, D] and log-normaliser [J, N, C]."""
        ...

    def backward(
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
        """Gradients of queries, keys and values."""
        ...


class EagerKernel:
    """Plain operators, any device: the reference for the others."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Output and log-normaliser."""
        scores = (q @ k.transpose(-1, -2)).float() if q.dtype is torch.bfloat16 else None
        if scores is None:
            scores = q @ k.transpose(-1, -2)
        scores.mul_(scale).add_(bias)
        normaliser = torch.logsumexp(scores, -1)
        weights = scores.sub_(normaliser[..., None]).exp_()
        return weights.to(v.dtype) @ v, normaliser

    def backward(
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
        """Gradients of queries, keys and values."""
        scores = (q @ k.transpose(-1, -2)).to(normaliser.dtype)
        weights = scores.mul_(scale).add_(bias).sub_(normaliser[..., None]).exp_()
        dv = weights.to(dout.dtype).transpose(-1, -2) @ dout
        along = (dout * out).sum(-1, keepdim=True)
        dscores = (dout @ v.transpose(-1, -2)).sub_(along).to(weights.dtype)
        dscores = dscores.mul_(weights).mul_(scale).to(q.dtype)
        return dscores @ k, dscores.transpose(-1, -2) @ q, dv


class FlashCpuKernel:
    """PyTorch's flash attention for the CPU: scores stay in cache, the normaliser comes along."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Output and log-normaliser."""
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=bias, scale=scale
        )

    def backward(
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
        """Gradients of queries, keys and values."""
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, k, v, out, normaliser, 0.0, False, attn_mask=bias, scale=scale
        )


def chosen_kernel(wanted: LshKernel, device: torch.device) -> tuple[LshKernel, ChunkKernel]:
    """The kernel of that name, and for ``auto`` the device's default.

    Raises ValueError when the kernel doesn't run on the device.
    """
    if wanted is LshKernel.AUTO:
        wanted = LshKernel.FLASH_CPU if device.type == "cpu" else LshKernel.EAGER
    if wanted is LshKernel.FLASH_CPU:
        if device.type != "cpu":
            raise ValueError(f"lsh_kernel = 'flash_cpu' runs on the CPU only, not on {device.type}")
        return wanted, FlashCpuKernel()
    return wanted, EagerKernel()
