"""The feed-forward sublayer, in pieces of the sequence (paper, section 3, chunking).

B batch, L length, P rows (batch · length), p rows of a piece, M model width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.norm import even_pieces
from reformer_bench.model.stack.streams import Stream
from reformer_bench.model.sublayer import Step, Sublayer, Tensors, dropout_scale, seeded_dropout
from reformer_bench.schema.model import ModelConfig


class FeedForwardSublayer(Sublayer):
    """Computes act(norm(x) W₁ᵀ + b₁) W₂ᵀ + b₂ over ``ff_chunks`` pieces of the rows."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__(config.d_model, config.norm_epsilon, dtype)
        self.inner = nn.Linear(config.d_model, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.d_model)
        self.n_pieces = config.ff_chunks
        self.activation = config.activation
        self.dropout = config.dropout
        self.layer = layer
        self.config = config

    @property
    def alike(self) -> Hashable:
        """All feed-forward sublayers of a model work with the same shapes."""
        return "feed_forward", self.config

    @property
    def place(self) -> str:
        """The layer it belongs to, and that it is the layer's feed-forward part."""
        return f"layers.{self.layer}.feed_forward"

    def forward(self, x_BLM: Tensor, step: Step) -> Tensor:
        """Run the whole sequence at once, under plain autograd."""
        dtype = self.compute_dtype
        h = self.norm(x_BLM, self.norm_epsilon).to(dtype)
        u = functional.linear(h, self.inner.weight.to(dtype), self.inner.bias.to(dtype))
        a = self._activate(u)
        y = functional.linear(a, self.outer.weight.to(dtype), self.outer.bias.to(dtype))
        y = y.to(x_BLM.dtype)
        if self.dropout and step.training:
            pieces = list(even_pieces(y.shape[0] * y.shape[1], self.n_pieces))
            rows = y.flatten(0, 1)
            dropped = [
                seeded_dropout(rows[piece], self.dropout, self._seed(step, piece))
                for piece in pieces
            ]
            y = torch.cat(dropped).view_as(y)
        return y

    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, sign: int, step: Step
    ) -> None:
        """Write sink ± f(norm(source)), piece by piece."""
        params = self._cast(params)
        for piece in even_pieces(step.batch * step.length, self.n_pieces):
            h = self.normed(params, source, piece).h_PM.to(self.compute_dtype)
            a = self._activate_(self._inner(params, h))
            del h
            sink.add_(piece, self._outer(params, a, step, piece), sign)

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
        """Run each piece forward and backward, one piece after another."""
        params = self._cast(params)
        for piece in even_pieces(step.batch * step.length, self.n_pieces):
            self._sweep_piece(params, grads, source, dy_PM[piece], dx_PM[piece], step, undo, piece)

    def _sweep_piece(
        self,
        params: Tensors,
        grads: Tensors,
        source: Stream,
        dy_pM: Tensor,
        dx_pM: Tensor,
        step: Step,
        undo: Stream | None,
        piece: slice,
    ) -> None:
        saved = self.normed(params, source, piece)
        h = saved.h_PM.to(self.compute_dtype)
        u = self._inner(params, h)
        a = self._activate(u)
        if undo is not None:
            undo.add_(piece, self._outer(params, a, step, piece), -1)
        if self.dropout and step.training:
            dy_pM = dy_pM * dropout_scale(dy_pM, self.dropout, self._seed(step, piece))
        dy = dy_pM.to(self.compute_dtype)
        _add_product_(grads["outer.weight"], dy.t(), a)
        grads["outer.bias"].add_(dy_pM.sum(0))
        del a
        du = self._activate_backward_(dy @ params["outer.weight"], u)
        del u, dy
        _add_product_(grads["inner.weight"], du.t(), h)
        grads["inner.bias"].add_(du.sum(0))
        dh = (du @ params["inner.weight"]).to(dx_pM.dtype)
        del du, h
        dx_pM.add_(self.normed_backward(params, grads, source, dh, saved))

    def _cast(self, params: Tensors) -> Tensors:
        """Return the weights in the dtype that computes; those of the normalisation stay as they
        are.
        """
        return {
            name: value if name.startswith("norm.") else value.to(self.compute_dtype)
            for name, value in params.items()
        }

    def _inner(self, params: Tensors, h_pM: Tensor) -> Tensor:
        return torch.addmm(params["inner.bias"], h_pM, params["inner.weight"].t())

    def _outer(self, params: Tensors, a_pF: Tensor, step: Step, piece: slice) -> Tensor:
        y = torch.addmm(params["outer.bias"], a_pF, params["outer.weight"].t())
        if self.dropout and step.training:
            y = y.to(params["norm.weight"].dtype)
            y = y.mul_(dropout_scale(y, self.dropout, self._seed(step, piece)))
        return y

    def _seed(self, step: Step, piece: slice) -> int:
        return step.seed_for(self.layer, 1) + piece.start

    def _activate(self, u: Tensor) -> Tensor:
        return functional.gelu(u) if self.activation == "gelu" else functional.relu(u)

    def _activate_(self, u: Tensor) -> Tensor:
        """Apply the activation in place."""
        return torch.ops.aten.gelu_(u) if self.activation == "gelu" else u.relu_()

    def _activate_backward_(self, da: Tensor, u: Tensor) -> Tensor:
        """Write the gradient before the activation over the gradient behind it."""
        if self.activation == "gelu":
            return torch.ops.aten.gelu_backward.grad_input(da, u, grad_input=da)
        return da.masked_fill_(u <= 0, 0)


def _add_product_(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a·b to ``into`` in place; products of a narrower dtype are added in the wider one."""
    if a.dtype == into.dtype:
        into.addmm_(a, b)
    else:
        into.add_(a @ b)
