"""A sublayer is f(norm(x)) as a set of independent parts, each run forward, or forward and
backward.

Attention is a sum over head groups, feed-forward a concatenation over pieces of the sequence. So
one interface serves both, and nothing needs all parts at once, in training either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from reformer_bench.model.norm import Normed, normalise, normalise_backward
from reformer_bench.model.step import Step
from reformer_bench.model.streams import Stream

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
