"""A sublayer is f(norm(x)) as a set of independent parts, each run forward, or forward and
backward.

Attention is a sum over head groups, feed-forward a concatenation over pieces of the sequence. So
one interface serves both, and nothing needs all parts at once, in training either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.model.norm import Normed, normalise, normalise_backward
from reformer_bench.model.stack.streams import Stream

_SEED_BOUND = 2**62


@dataclass(frozen=True)
class Step:
    """One pass over a batch.

    A step draws one seed. Everything random in it derives from that seed and the place where it is
    used, so that a recomputation repeats dropout and hash rotations exactly.
    """

    batch: int
    length: int
    seed: int
    valid_BL: Tensor | None = None
    """True where a token is real, [batch, length] bool; None stands for everywhere."""
    training: bool = True

    @property
    def shapes(self) -> tuple[int, int, bool, bool]:
        """A key that is equal for steps that work with the same shapes."""
        return self.batch, self.length, self.valid_BL is None, self.training

    def seed_for(self, layer: int, use: int) -> int:
        """Return the seed of one use (0: attention dropout, 1: feed-forward dropout, 2:
        hashing).
        """
        # splitmix64's odd constant spreads neighbouring places over the whole range.
        return (self.seed + (layer * 8 + use + 1) * 0x9E3779B97F4A7C15) % _SEED_BOUND


def draw_seed() -> int:
    """Draw a seed from torch's global generator, so that torch.manual_seed repeats a step."""
    # The draw is real also while operators are only being traced on fake tensors.
    with _disable_current_modes():
        return int(torch.randint(_SEED_BOUND, ()))


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a generator for one use alone."""
    return torch.Generator(device).manual_seed(seed)


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


Tensors = Mapping[str, Tensor]
"""Parameters, or their gradients, by local name, on the device that computes."""


class Norm(nn.Module):
    """The weight and bias of a layer normalisation over ``width`` features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, epsilon: float) -> Tensor:
        """Return normalised x [..., width], under plain autograd."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, epsilon)


class Sublayer(nn.Module, ABC):
    """One pre-normalised sublayer of a residual stack.

    P rows (batch · length), M model width.
    """

    def __init__(self, d_model: int, norm_epsilon: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = Norm(d_model)
        self.norm_epsilon = norm_epsilon
        self.compute_dtype = dtype

    @property
    @abstractmethod
    def alike(self) -> Hashable:
        """A key that is equal for sublayers that work with the same shapes."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where in the model it is, in words for people."""

    @abstractmethod
    def forward(self, x_BLM: Tensor, step: Step) -> Tensor:
        """Return f(norm(x)), [B, L, M], under plain autograd, which keeps activations for
        backward.
        """

    @abstractmethod
    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, sign: int, step: Step
    ) -> None:
        """Write sink ± f(norm(source)), in place, part by part, keeping nothing."""

    @abstractmethod
    def sweep(
        self,
        params: Tensors,
        grads: Tensors,
        source: Stream,
        dy_PM: Tensor,
        dx_PM: Tensor,
        step: Step,
        undo: Stream | None = None,
    ) -> None:
        """Recompute each part, take it from ``undo``, and add its vector-Jacobian
        products.

        ``dy`` is the gradient of f's result; gradients of the source are added to ``dx`` and those
        of the parameters to ``grads``, in place. One forward is recomputed, and no more than one
        part's activations exist at once.
        """

    def normed(self, params: Tensors, source: Stream, rows: slice) -> Normed:
        """Return normalised rows of a stream."""
        return normalise(
            source.read(rows),
            params["norm.weight"],
            params["norm.bias"],
            self.norm_epsilon,
            source.norm_scale,
        )

    def normed_backward(
        self, params: Tensors, grads: Tensors, source: Stream, dh_PM: Tensor, saved: Normed
    ) -> Tensor:
        """Return the gradient of the stream's rows, given that of their normalised ones."""
        return normalise_backward(
            dh_PM,
            saved,
            params["norm.weight"],
            params["norm.bias"],
            grads["norm.weight"],
            grads["norm.bias"],
            source.norm_scale,
        )
