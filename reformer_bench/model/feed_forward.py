"""The feed-forward sublayer, over slices of the sequence (paper, section 3, chunking).

B batch, L length, P rows (batch · length), p rows of a slice, M model width, F feed-forward width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.fused import (
    ColumnSums,
    activate_backward_,
    add_column_sums,
    sum_columns,
)
from reformer_bench.model.repeats import repeats
from reformer_bench.model.sizes import feed_forward_row_bytes, pieces_on_gpu
from reformer_bench.model.stack.streams import Stream
from reformer_bench.model.sublayer import (
    PassContext,
    RandomUse,
    Sublayer,
    Sweep,
    dropout_scale,
    seeded_dropout,
)
from reformer_bench.model.tensors import Tensors, add_product_, row_slices
from reformer_bench.schema.model import ModelConfig


class FeedForwardSublayer(Sublayer):
    """Computes act(norm(x) W₁ᵀ + b₁) W₂ᵀ + b₂ over ``ff_chunks`` slices of the rows; over
    fewer on a GPU where the model's peak is that of attention.
    """

    role = "feed_forward"

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__(config.d_model, config.norm_epsilon, config.dropout, layer, dtype)
        self.inner = nn.Linear(config.d_model, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.d_model)
        self.n_chunks = config.ff_chunks
        self.n_pieces_on_gpu = pieces_on_gpu(
            config, config.ff_chunks, feed_forward_row_bytes(config)
        )
        self.activation = config.activation

    def forward(self, x_BLM: Tensor, context: PassContext) -> Tensor:
        """Run the whole sequence at once, under plain autograd."""
        dtype = self.compute_dtype
        h = self.norm(x_BLM, self.norm_epsilon).to(dtype)
        u = functional.linear(h, self.inner.weight.to(dtype), self.inner.bias.to(dtype))
        a = self._activate(u)
        y = functional.linear(a, self.outer.weight.to(dtype), self.outer.bias.to(dtype))
        y = y.to(x_BLM.dtype)
        if p := self.dropout_in(context):
            y_PM = y.flatten(0, 1)
            dropped = [
                seeded_dropout(y_PM[rows], p, self._seed(context, rows))
                for rows in self._slices(dict(self.named_parameters()), context)
            ]
            y = torch.cat(dropped).view_as(y)
        return y

    @repeats
    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, context: PassContext
    ) -> None:
        """Add f(norm(source)) to ``sink``, a slice of the rows at a time."""
        params = self._cast(params)
        for rows in self._slices(params, context):
            h = self.normed(params, source, rows)[0]
            a = self._activate_(self._inner(params, h))
            del h
            sink.add_(rows, self._outer(params, a, context, rows), 1)

    @repeats
    def sweep(self, sweep: Sweep, context: PassContext) -> None:
        """Run each slice of the rows forward and backward, one after another."""
        params = self._cast(sweep.params)
        for rows in self._slices(params, context):
            self._sweep_rows(params, sweep, context, rows)

    def _sweep_rows(self, params: Tensors, sweep: Sweep, context: PassContext, rows: slice) -> None:
        grads, dy_pM = sweep.grads, sweep.dy_PM[rows]
        fused = self.fused(params)
        # Fused programs write gradients first, and add to them from the second slice on.
        fresh = fused and rows.start == 0
        h, saved = self.normed(params, sweep.source, rows)
        u = self._inner(params, h)
        a = self._activate(u)
        if sweep.undo is not None:
            sweep.undo.add_(rows, self._outer(params, a, context, rows), -1)
        if p := self.dropout_in(context):
            dy_pM = dy_pM * dropout_scale(dy_pM, p, self._seed(context, rows))
        sums: list[ColumnSums] = []
        if fused:
            dy, of_outer = sum_columns(dy_pM, grads["outer.bias"], self.compute_dtype)
            sums.append(of_outer)
        else:
            dy = dy_pM.to(self.compute_dtype)
        add_product_(grads["outer.weight"], dy.t(), a, fresh=fresh)
        if not fused:
            grads["outer.bias"].add_(dy_pM.sum(0))
        del a
        du = dy @ params["outer.weight"]
        if fused:
            sums.append(activate_backward_(du, u, grads["inner.bias"], self.activation))
        else:
            du = self._activate_backward_(du, u)
        del u, dy
        add_product_(grads["inner.weight"], du.t(), h, fresh=fresh)
        if not fused:
            grads["inner.bias"].add_(du.sum(0))
        dh = du @ params["inner.weight"]
        if not fused:
            dh = dh.to(dy_pM.dtype)
        del du, h
        sums += self.normed_backward(params, sweep, rows, dh, saved)
        if fused:
            add_column_sums(sums, fresh=fresh)

    def _slices(self, params: Tensors, context: PassContext) -> list[slice]:
        n_chunks = self.n_pieces_on_gpu if self.fused(params) else self.n_chunks
        return list(row_slices(context.n_rows, n_chunks))

    def _cast(self, params: Tensors) -> Tensors:
        """Return the weights in the dtype that computes; those of the normalisation stay as they
        are.
        """
        names = [name for name in params if not name.startswith("norm.")]
        if self.fused(params) and self.compute_dtype != params["norm.weight"].dtype:
            # One launch for all of them (cuda/ForeachBinaryOpList.cu, foreach_tensor_copy).
            wide = [params[name] for name in names]
            narrow = [torch.empty_like(x, dtype=self.compute_dtype) for x in wide]
            torch._foreach_copy_(narrow, wide)
            return {**params, **dict(zip(names, narrow, strict=True))}
        return {
            name: value if name.startswith("norm.") else value.to(self.compute_dtype)
            for name, value in params.items()
        }

    def _inner(self, params: Tensors, h_pM: Tensor) -> Tensor:
        return torch.addmm(params["inner.bias"], h_pM, params["inner.weight"].t())

    def _outer(self, params: Tensors, a_pF: Tensor, context: PassContext, rows: slice) -> Tensor:
        y = torch.addmm(params["outer.bias"], a_pF, params["outer.weight"].t())
        if p := self.dropout_in(context):
            y = y.to(params["norm.weight"].dtype)
            y = y.mul_(dropout_scale(y, p, self._seed(context, rows)))
        return y

    def _seed(self, context: PassContext, rows: slice) -> int:
        return context.seed_for(self.layer, RandomUse.FEED_FORWARD_DROPOUT) + int(rows.start)

    def _activate(self, u: Tensor) -> Tensor:
        return functional.gelu(u) if self.activation == "gelu" else functional.relu(u)

    def _activate_(self, u: Tensor) -> Tensor:
        """Apply the activation in place."""
        return cast(Tensor, torch.ops.aten.gelu_(u)) if self.activation == "gelu" else u.relu_()

    def _activate_backward_(self, da: Tensor, u: Tensor) -> Tensor:
        """Write the gradient before the activation over the gradient behind it."""
        if self.activation == "gelu":
            return cast(Tensor, torch.ops.aten.gelu_backward.grad_input(da, u, grad_input=da))
        return da.masked_fill_(u <= 0, 0)
