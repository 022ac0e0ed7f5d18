"""The attention sublayer: a sum over head groups, each with its own slice of the projections.

B batch, L length, P rows (batch · length), H heads, G heads of one group, D head width, c packed
features of a head (query and value, or query, key and value), M model width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.dense import (
    full_attention,
    memory_efficient_attention,
    sdpa_attention,
)
from reformer_bench.model.attention.kernels import chosen_kernel
from reformer_bench.model.attention.lsh import (
    bucket_factors,
    draw_rotations,
    hashed_attention,
    local_attention,
)
from reformer_bench.model.norm import normalise_backward
from reformer_bench.model.repeats import Index, repeats
from reformer_bench.model.stack.streams import Stream
from reformer_bench.model.sublayer import (
    PassContext,
    RandomUse,
    Sublayer,
    Sweep,
    dropout_scale,
    seeded_dropout,
)
from reformer_bench.model.tensors import Tensors, small_row_slices
from reformer_bench.schema.model import Attention, ModelConfig


class AttentionSublayer(Sublayer):
    """Computes y = Σ_g attend(norm(x) · W_g) · O_g over groups g of heads."""

    role = "attention"

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__(config.d_model, config.norm_epsilon, config.dropout, layer, dtype)
        self.config, self.kind = config, config.kind(layer)
        self.settings = AttentionSettings.of(config, layer)
        features = config.n_heads * config.head_width
        names = ["query_key", "value"] if self.settings.shared_qk else ["query", "key", "value"]
        self.projections = names
        for name in names:
            self.add_module(name, nn.Linear(config.d_model, features, bias=False))
        self.output = nn.Linear(features, config.d_model, bias=False)
        self.n_groups = config.head_groups or config.n_heads
        self.group_size = config.n_heads // self.n_groups

    def forward(self, x_BLM: Tensor, context: PassContext) -> Tensor:
        """Run all groups under plain autograd."""
        h = self.norm(x_BLM, self.norm_epsilon).to(self.compute_dtype)
        params = dict(self.named_parameters())
        rotations = self._rotations(context, x_BLM.device)
        y: Tensor | None = None
        for group in range(self.n_groups):
            packed = functional.linear(h, self._packed_weight(params, group))
            packed = packed.unflatten(-1, (self.group_size, -1))
            out = self._attend(packed, rotations, group, context)
            share = functional.linear(out.flatten(2), self._output_weight(params, group))
            y = share if y is None else y + share
        assert y is not None
        y = y.to(x_BLM.dtype)
        return seeded_dropout(y, self.dropout_in(context), self._dropout_seed(context))

    @repeats
    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, context: PassContext
    ) -> None:
        """Add f(norm(source)) to ``sink``, a group of heads at a time."""
        rotations = self._rotations(context, params["output.weight"].device)
        for group in range(self.n_groups):
            self.accumulate_group(params, source, sink, context, rotations, Index(group))

    @repeats
    def accumulate_group(
        self,
        params: Tensors,
        source: Stream,
        sink: Stream,
        context: PassContext,
        rotations: Tensor | None,
        group: Index,
    ) -> None:
        """Add one group's share to ``sink``."""
        packed = self._project(params, group, source, context)
        with torch.no_grad():
            out = self._attend(packed, rotations, group, context)
        del packed
        self._add_output(params, group, out, sink, 1, context)

    @repeats
    def sweep(self, sweep: Sweep, context: PassContext) -> None:
        """Run each group of heads forward and backward, one group after another."""
        rotations = self._rotations(context, sweep.dy_PM.device)
        for group in range(self.n_groups):
            self.sweep_group(sweep, context, rotations, Index(group))

    @repeats
    def sweep_group(
        self, sweep: Sweep, context: PassContext, rotations: Tensor | None, group: Index
    ) -> None:
        """Run one group of heads forward and backward."""
        packed = self._project(sweep.params, group, sweep.source, context).requires_grad_()
        with torch.enable_grad():
            out = self._attend(packed, rotations, group, context)
        if sweep.undo is not None:
            self._add_output(sweep.params, group, out.detach(), sweep.undo, -1, context)
        dout = self._output_backward(sweep, group, out.detach(), context)
        (dpacked,) = torch.autograd.grad(out, packed, dout)
        del packed, out, dout
        self._project_backward(sweep, group, dpacked)

    def _attend(
        self, packed_BLGc: Tensor, rotations: Tensor | None, group: int, context: PassContext
    ) -> Tensor:
        """Return one group's attention, [B, L, G, D], by the layer's kind."""
        settings, valid = self.settings, context.valid_BL
        match self.kind:
            case Attention.FULL:
                return full_attention(packed_BLGc, settings, valid)
            case Attention.MEMORY_EFFICIENT:
                return memory_efficient_attention(packed_BLGc, settings, valid)
            case Attention.SDPA:
                return sdpa_attention(packed_BLGc, settings, valid)
        _, kernel = chosen_kernel(settings, packed_BLGc.device, packed_BLGc.dtype)
        if self.kind is Attention.LOCAL:
            return local_attention(packed_BLGc, settings, valid, kernel)
        assert rotations is not None
        heads = slice(group * self.group_size, (group + 1) * self.group_size)
        factors = self._factors(context)
        return hashed_attention(packed_BLGc, rotations[heads], factors, settings, valid, kernel)

    def _factors(self, context: PassContext) -> tuple[int, ...]:
        return bucket_factors(self.config.n_buckets, context.length, self.config.chunk_length)

    def _rotations(self, context: PassContext, device: torch.device) -> Tensor | None:
        """Draw the pass's rotations [H, D, R, K]; they are the same for every group and every
        recomputation.
        """
        if self.kind is not Attention.LSH:
            return None
        config, seed = self.config, self.config.hash_seed
        if seed is None:
            seed = context.seed_for(self.layer, RandomUse.HASHING)
        return draw_rotations(
            config.n_heads,
            config.head_width,
            config.n_hashes,
            self._factors(context),
            seed,
            device,
            self.compute_dtype,
        )

    def _heads(self, group: int) -> slice:
        """Return where the group's features are among those of all heads."""
        size = self.group_size * self.settings.d_head
        return slice(group * size, (group + 1) * size)

    def _packed_weight(self, params: Tensors, group: int) -> Tensor:
        """Return rows of the projections, [G·c, M], each head's features side by side."""
        rows = [params[f"{name}.weight"][self._heads(group)] for name in self.projections]
        stacked = torch.stack([r.unflatten(0, (self.group_size, -1)) for r in rows], dim=1)
        return stacked.flatten(0, 2).to(self.compute_dtype)

    def _output_weight(self, params: Tensors, group: int) -> Tensor:
        """Return columns of the output projection, [M, G·D]."""
        return params["output.weight"][:, self._heads(group)].to(self.compute_dtype)

    def _slices(self, n_rows: int, dtype: torch.dtype) -> Iterator[slice]:
        """Yield slices of a stream's rows."""
        return small_row_slices(n_rows, self.config.d_model * dtype.itemsize)

    def _project(self, params: Tensors, group: int, source: Stream, context: PassContext) -> Tensor:
        """Return the packed features [B, L, G, c] of one group, normalising on the way, a slice of
        the rows at a time: no normalised copy of the whole stream exists.
        """
        weight = self._packed_weight(params, group)
        packed = weight.new_empty(context.n_rows, weight.shape[0])
        for rows in self._slices(context.n_rows, params["norm.weight"].dtype):
            h = self.normed(params, source, rows).h_PM.to(self.compute_dtype)
            torch.mm(h, weight.t(), out=packed[rows])
        return packed.view(context.batch, context.length, self.group_size, -1)

    def _project_backward(self, sweep: Sweep, group: int, dpacked_BLGc: Tensor) -> None:
        """Add the gradients of the group's projections, of the normalisation and of the rows."""
        weight = self._packed_weight(sweep.params, group)
        dpacked, dx_PM = dpacked_BLGc.flatten(2).flatten(0, 1), sweep.dx_PM
        dweight = torch.zeros_like(weight, dtype=dx_PM.dtype)
        for rows in self._slices(dpacked.shape[0], dx_PM.dtype):
            saved = self.normed(sweep.params, sweep.source, rows)
            h = saved.h_PM.to(self.compute_dtype)
            dweight.add_(dpacked[rows].t() @ h)
            dh = (dpacked[rows] @ weight).to(dx_PM.dtype)
            dx_PM[rows].add_(normalise_backward(sweep.params, sweep.grads, dh, saved))
        by_name = dweight.unflatten(0, (self.group_size, len(self.projections), -1)).unbind(1)
        for name, grad in zip(self.projections, by_name, strict=True):
            sweep.grads[f"{name}.weight"][self._heads(group)].add_(grad.flatten(0, 1))

    def _add_output(
        self,
        params: Tensors,
        group: int,
        out_BLGD: Tensor,
        sink: Stream,
        sign: int,
        context: PassContext,
    ) -> None:
        """Write sink ± out · O_g, a slice of the rows at a time."""
        weight = self._output_weight(params, group)
        out = out_BLGD.flatten(2).flatten(0, 1)
        scale = self._dropout_scale(params, context)
        for rows in self._slices(out.shape[0], params["norm.weight"].dtype):
            if scale is None:
                sink.add_product_(rows, out[rows], weight.t(), sign)
            else:
                sink.add_(rows, (out[rows] @ weight.t()) * scale[rows], sign)

    def _output_backward(
        self, sweep: Sweep, group: int, out_BLGD: Tensor, context: PassContext
    ) -> Tensor:
        """Return the gradient [B, L, G, D] of the group's output, and add that of the output
        projection.
        """
        weight = self._output_weight(sweep.params, group)
        out, dy_PM = out_BLGD.flatten(2).flatten(0, 1), sweep.dy_PM
        scale = self._dropout_scale(sweep.params, context)
        dout = torch.empty_like(out)
        dweight = torch.zeros_like(weight, dtype=dy_PM.dtype)
        for rows in self._slices(out.shape[0], dy_PM.dtype):
            dy = dy_PM[rows] if scale is None else dy_PM[rows] * scale[rows]
            dy = dy.to(self.compute_dtype)
            torch.mm(dy, weight, out=dout[rows])
            dweight.add_(dy.t() @ out[rows])
        sweep.grads["output.weight"][:, self._heads(group)].add_(dweight)
        return dout.view_as(out_BLGD)

    def _dropout_seed(self, context: PassContext) -> int:
        return context.seed_for(self.layer, RandomUse.DROPOUT)

    def _dropout_scale(self, params: Tensors, context: PassContext) -> Tensor | None:
        """Return the sublayer's dropout mask [P, M], or None where nothing is dropped; all groups
        share it, since it applies to their sum.
        """
        p = self.dropout_in(context)
        if not p:
            return None
        like = params["norm.weight"].new_empty(context.batch, context.length, self.config.d_model)
        return dropout_scale(like, p, self._dropout_seed(context)).flatten(0, 1)
