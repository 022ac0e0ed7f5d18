"""Attention of each chunk's queries over its own and the previous chunk's keys.

J chunks of a block, N sequences, C chunk length, D head width; queries are [J, N, C, D], keys and
values [J, N, 2C, D], bias [J, N, C, 2C]. The backward pass takes the output and the log-normaliser
(the logarithm of the softmax denominator) of all rounds together: exp(score − log-normaliser) is
then each key's share of the combined softmax, and the gradients are those of the combination
(paper, section 2, multi-round attention).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels.triton import TritonKernel, why_not_fused
from reformer_bench.schema.model import LshKernel


class ChunkKernel(Protocol):
    """A way to compute attention inside chunks."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the output [J, N, C, D] and the log-normaliser [J, N, C]."""
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
        """Return the gradients of queries, keys and values."""
        ...


class EagerKernel:
    """Uses plain operators on any device; it is the reference for the others."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return output and log-normaliser, from plain operators."""
        scores = (q @ k.transpose(-1, -2)).to(bias.dtype)
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
        """Return the gradients of queries, keys and values, from plain operators."""
        scores = (q @ k.transpose(-1, -2)).to(normaliser.dtype)
        weights = scores.mul_(scale).add_(bias).sub_(normaliser[..., None]).exp_()
        dv = weights.to(dout.dtype).transpose(-1, -2) @ dout
        along = (dout * out).sum(-1, keepdim=True)
        dscores = (dout @ v.transpose(-1, -2)).sub_(along).to(weights.dtype)
        dscores = dscores.mul_(weights).mul_(scale).to(q.dtype)
        return dscores @ k, dscores.transpose(-1, -2) @ q, dv


class FlashCpuKernel:
    """Uses PyTorch's flash attention for the CPU: scores stay in cache, and the log-normaliser
    comes along.
    """

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return output and log-normaliser, from PyTorch's flash attention."""
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
        """Return the gradients of queries, keys and values, from PyTorch's flash attention."""
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, k, v, out, normaliser, 0.0, False, attn_mask=bias, scale=scale
        )


def chosen_kernel(
    settings: AttentionSettings, device: torch.device, dtype: torch.dtype
) -> tuple[LshKernel, ChunkKernel | TritonKernel]:
    """Return the kernel of the settings' name, and for ``auto`` the device's default.

    Raises ValueError when the kernel doesn't run on the device or with the settings.
    """
    wanted = settings.lsh_kernel
    if wanted is LshKernel.AUTO:
        wanted = _default_kernel(settings, device, dtype)
    if wanted is LshKernel.FLASH_CPU:
        if device.type != "cpu":
            raise ValueError(f"lsh_kernel = 'flash_cpu' runs on the CPU only, not on {device.type}")
        return wanted, FlashCpuKernel()
    if wanted is LshKernel.TRITON:
        uncovered = why_not_fused(settings, dtype)
        if uncovered is not None:
            raise ValueError(f"lsh_kernel = 'triton' doesn't cover {uncovered}")
        return wanted, TritonKernel()
    return wanted, EagerKernel()


def _default_kernel(
    settings: AttentionSettings, device: torch.device, dtype: torch.dtype
) -> LshKernel:
    if device.type == "cpu":
        return LshKernel.FLASH_CPU
    if device.type == "cuda" and why_not_fused(settings, dtype) is None:
        return LshKernel.TRITON
    return LshKernel.EAGER
