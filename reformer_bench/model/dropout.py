"""Dropout whose mask is a function of a seed, so that a recomputation repeats it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.step import generator


def dropout_scale(like: Tensor, p: float, seed: int) -> Tensor:
    """Return 0 where dropped and 1/(1−p) where kept, in the shape, dtype and device of ``like``."""
    kept = torch.empty_like(like).bernoulli_(1 - p, generator=generator(seed, like.device))
    return kept.mul_(1 / (1 - p))


class _SeededDropout(torch.autograd.Function):
    """Multiplies by the mask of a seed, and keeps the seed, not the mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return x * dropout_scale(x, p, seed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return grad * dropout_scale(grad, ctx.p, ctx.seed), None, None


def seeded_dropout(x: Tensor, p: float, seed: int) -> Tensor:
    """Drop features of x with probability p, differentiably."""
    return _SeededDropout.apply(x, p, seed) if p > 0 else x
