"""The kernel of plain operators, for any device; it is the reference for the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reformer_bench.model.attention.kernels.blocks import BlockKernel


@dataclass(frozen=True)
class EagerKernel(BlockKernel):
    """Computes all scores of a block, then their softmax."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return output and log-normaliser of a block."""
        scores = (q @ k.transpose(-1, -2)).to(bias.dtype)
        scores.mul_(scale).add_(bias)
        normaliser = torch.logsumexp(scores, -1)
        weights = scores.sub_(normaliser[..., None]).exp_()
        return weights.to(v.dtype) @ v, normaliser

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
        scores = (q @ k.transpose(-1, -2)).to(normaliser.dtype)
        weights = scores.mul_(scale).add_(bias).sub_(normaliser[..., None]).exp_()
        dv = weights.to(dout.dtype).transpose(-1, -2) @ dout
        along = (dout * out).sum(-1, keepdim=True)
        dscores = (dout @ v.transpose(-1, -2)).sub_(along).to(weights.dtype)
        dscores = dscores.mul_(weights).mul_(scale).to(q.dtype)
        return dscores @ k, dscores.transpose(-1, -2) @ q, dv
