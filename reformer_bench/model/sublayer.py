"""A sublayer is f(norm(x)) computed piece by piece, forward, or forward and backward at once.

Attention is a sum over head groups, feed-forward a concatenation over slices of the rows. So one
interface serves both, and nothing needs the whole of a sublayer at once, in training either.

B batch, L length, P rows (batch · length), M model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.model.fused import ColumnSums, fuses_rows
from reformer_bench.model.norm import (
    Norm,
    Normed,
    NormedStreams,
    normalise,
    normalise_backward,
    normalise_streams,
    normalise_streams_backward,
)
from reformer_bench.model.repeats import Index, Seed
from reformer_bench.model.stack.streams import Stream
from reformer_bench.model.tensors import Tensors, applied, zero_grads

_SEED_BOUND = 2**62
_USES_PER_LAYER = 8


class RandomUse(IntEnum):
    """What a layer draws random numbers for."""

    DROPOUT = 0
    """After attention, and after the embedding, which counts as a layer behind the last."""
    FEED_FORWARD_DROPOUT = 1
    HASHING = 2


@dataclass(frozen=True, eq=False)
class PassContext:
    """What one pass over a batch shares: its sizes, its padding and its seed.

    Everything random in a pass derives from the one seed and the place where it is used, so that a
    recomputation repeats dropout and hash rotations exactly.
    """

    batch: int
    length: int
    seed: Seed
    valid_BL: Tensor | None
    """True where a token is real, [batch, length] bool; None stands for everywhere."""
    training: bool

    @staticmethod
    def begin(
        batch: int, length: int, *, valid_BL: Tensor | None = None, training: bool
    ) -> PassContext:
        """Begin a pass, with a seed from torch's global generator, so that torch.manual_seed
        repeats it.
        """
        # The draw is real also while operators are only being traced on fake tensors.
        with _disable_current_modes():
            seed = Seed(torch.randint(_SEED_BOUND, ()))
        return PassContext(batch, length, seed, valid_BL, training)

    @property
    def n_rows(self) -> int:
        """The rows of a stream, P."""
        return self.batch * self.length

    def seed_for(self, layer: int, use: RandomUse) -> int:
        """Return the seed of one use in one layer."""
        # splitmix64's odd constant spreads neighbouring places over the whole range.
        place = layer * _USES_PER_LAYER + use + 1
        return (self.seed + place * 0x9E3779B97F4A7C15) % _SEED_BOUND


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
    return applied(_SeededDropout, x, p, seed) if p > 0 else x


@dataclass(frozen=True, eq=False)
class Sweep:
    """What one sublayer's backward pass reads, and what it writes in place."""

    params: Tensors
    grads: Tensors
    """The gradients of the parameters are added here, by ``new_grads``."""
    source: Stream
    """What the sublayer read; it is normalised again."""
    dy_PM: Tensor
    """The gradient of the sublayer's result."""
    dx_PM: Tensor
    """The gradient of the source is added here."""
    undo: Stream | None = None
    """The stream that the sublayer's result is taken from again; None for none."""


class Sublayer(nn.Module, ABC):
    """One pre-normalised sublayer of a residual stack."""

    role: ClassVar[str]
    """What it is called in its layer."""

    def __init__(
        self, d_model: int, norm_epsilon: float, dropout: float, layer: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.norm = Norm(d_model)
        self.norm_epsilon = norm_epsilon
        self.dropout = dropout
        self.layer = Index(layer)
        self.compute_dtype = dtype

    @property
    def place(self) -> str:
        """Where in the model it is, as in ``layers.0.attention``."""
        return f"layers.{self.layer}.{self.role}"

    @abstractmethod
    def forward(self, x_BLM: Tensor, context: PassContext) -> Tensor:
        """Return f(norm(x)), [B, L, M], under plain autograd, which keeps activations for
        backward.
        """

    @abstractmethod
    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, context: PassContext
    ) -> None:
        """Add f(norm(source)) to ``sink``, in place, piece by piece, keeping nothing."""

    @abstractmethod
    def sweep(self, sweep: Sweep, context: PassContext) -> None:
        """Recompute each piece, take it from ``undo``, and add its vector-Jacobian products.

        One forward is recomputed, and no more than one piece's activations exist at once.
        """

    def fused(self, params: Tensors) -> bool:
        """Say whether fused programs normalise, add to streams and sum columns here."""
        return fuses_rows(params["norm.weight"], self.norm.weight.shape[0])

    def new_grads(self, params: Tensors) -> Tensors:
        """Make room for the gradients of parameters: zeros to be added to, or where programs are
        fused, tensors that are written first.
        """
        if not self.fused(params):
            return zero_grads(params)
        return {name: torch.empty_like(value) for name, value in params.items()}

    def normed(
        self, params: Tensors, source: Stream, rows: slice
    ) -> tuple[Tensor, Normed | NormedStreams]:
        """Return normalised rows of a stream in the dtype that computes, and what their backward
        pass needs.
        """
        if self.fused(params):
            stored, scale = (source.stored(rows),), source.norm_scale
            saved = normalise_streams(params, stored, self.norm_epsilon, scale, self.compute_dtype)
            return saved.h_PW, saved
        plain = self._normalised(params, source, rows)
        return plain.h_PM.to(self.compute_dtype), plain

    def normed_backward(
        self,
        params: Tensors,
        sweep: Sweep,
        rows: slice,
        dh_PM: Tensor,
        saved: Normed | NormedStreams,
    ) -> list[ColumnSums]:
        """Add the gradient of the source's rows, given that of the normalised ones, and those of
        weight and bias. Where programs are fused, the latter are returned, for
        ``add_column_sums``; elsewhere ``dh`` has the dtype of the source's gradient.
        """
        dx_PM = sweep.dx_PM[rows]
        if isinstance(saved, NormedStreams):
            return normalise_streams_backward(params, sweep.grads, dh_PM, saved, (dx_PM,), add=True)
        dx_PM.add_(normalise_backward(params, sweep.grads, dh_PM, saved))
        return []

    def _normalised(self, params: Tensors, source: Stream, rows: slice) -> Normed:
        return normalise(params, source.read(rows), self.norm_epsilon, source.norm_scale)

    def dropout_in(self, context: PassContext) -> float:
        """Return the probability that a feature is dropped in this pass."""
        return self.dropout if context.training else 0.0
