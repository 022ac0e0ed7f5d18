"""Token embedding plus positions: axial (two small tables), learned (one large table) or none.

Paper, section 4 (axial positional embeddings of the authors' code). B batch, L length, M model
width; an axial model's position p is row p // n₂ of the first table beside row p % n₂ of the
second, n₂ being the second table's rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.tensors import Tensors, applied, by_parameter_name, zero_grads
from reformer_bench.schema.model import ModelConfig, Positions


class Embedding(nn.Module):
    """The first stage, from tokens [B, L] to activations [B, L, M]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.tokens.weight, std=0.5)
        shapes: dict[Positions, tuple[tuple[int, int], ...]] = {
            Positions.AXIAL: config.position_tables(),
            Positions.LEARNED: ((config.max_length, config.d_model),),
            Positions.NONE: (),
        }
        self.positions = nn.ParameterList(
            nn.Parameter(torch.randn(rows, width) * 0.5) for rows, width in shapes[config.positions]
        )

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Return activations [B, L, M], differentiably."""
        return applied(_Embed, self, tokens_BL, *self.parameters())

    def lookup(self, params: Tensors, tokens_BL: Tensor) -> Tensor:
        """Return activations [B, L, M]; no temporary of that size exists besides the result."""
        x_BLM = functional.embedding(tokens_BL, params["tokens.weight"])
        for x, rows in self._with_positions(params, x_BLM):
            x.add_(rows)
        return x_BLM

    def lookup_backward(self, params: Tensors, tokens_BL: Tensor, dx_BLM: Tensor) -> Tensors:
        """Return the gradients of the tables, by name."""
        vocab_size = params["tokens.weight"].shape[0]
        grads = dict(zero_grads(params))
        grads["tokens.weight"] = torch.ops.aten.embedding_dense_backward(
            dx_BLM, tokens_BL, vocab_size, -1, False
        )
        for dx, rows in self._with_positions(grads, dx_BLM):
            rows.add_(dx.sum_to_size(rows.shape))
        return grads

    def _with_positions(self, tables: Tensors, x_BLM: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (a region of x, the rows of a table that belong to it), broadcastable to each
        other.
        """
        length = x_BLM.shape[1]
        if len(self.positions) == 0:
            return
        if len(self.positions) == 1:
            yield x_BLM, tables["positions.0"][None, :length]
            return
        first, second = tables["positions.0"], tables["positions.1"]
        width, per_row = first.shape[1], second.shape[0]
        n_full = length // per_row
        if n_full:
            full = x_BLM[:, : n_full * per_row].unflatten(1, (n_full, per_row))
            yield full[..., :width], first[None, :n_full, None]
            yield full[..., width:], second[None, None]
        rest = x_BLM[:, n_full * per_row :]
        if rest.shape[1]:
            yield rest[..., :width], first[None, n_full : n_full + 1]
            yield rest[..., width:], second[None, : rest.shape[1]]


class _Embed(torch.autograd.Function):
    """Embedding.lookup as a function with a gradient."""

    @staticmethod
    def forward(ctx: Any, module: Embedding, tokens_BL: Tensor, *tables: Tensor) -> Tensor:
        ctx.module, ctx.tokens_BL = module, tokens_BL
        ctx.save_for_backward(*tables)
        return module.lookup(by_parameter_name(module, tables), tokens_BL)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        params = by_parameter_name(ctx.module, ctx.saved_tensors)
        tables = ctx.module.lookup_backward(params, ctx.tokens_BL, grads[0])
        return None, None, *tables.values()
