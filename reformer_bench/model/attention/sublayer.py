"""The attention sublayer: a sum over head groups, each with its own slice of the projections.

B batch, L length, P rows (batch · length), H heads, G heads of one group, D head width, c packed
features of a head (query and value, or query, key and value), M model width.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.dense import (
    full_attention,
    memory_efficient_attention,
    sdpa_attention,
)
from reformer_bench.model.attention.kernels.eager import chosen_kernel
from reformer_bench.model.attention.lsh import (
    bucket_factors,
    draw_rotations,
    hash_queries,
    local_attention,
    lsh_attention,
)
from reformer_bench.model.norm import small_pieces
from reformer_bench.model.repeats import repeat
from reformer_bench.model.stack.streams import Stream
from reformer_bench.model.sublayer import Step, Sublayer, Tensors, dropout_scale, seeded_dropout
from reformer_bench.schema.model import Attention, ModelConfig


class AttentionSublayer(Sublayer):
    """Computes y = Σ_g attend(norm(x) · W_g) · O_g over groups g of heads."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__(config.d_model, config.norm_epsilon, dtype)
        self.config, self.layer, self.kind = config, layer, config.kind(layer)
        self.settings = AttentionSettings.of(config, layer)
        features = config.n_heads * config.head_width
        names = ["query_key", "value"] if self.settings.shared_qk else ["query", "key", "value"]
        self.projections = names
        for name in names:
            self.add_module(name, nn.Linear(config.d_model, features, bias=False))
        self.output = nn.Linear(features, config.d_model, bias=False)
        self.n_groups = config.head_groups or config.n_heads
        self.group_size = config.n_heads // self.n_groups

    @property
    def alike(self) -> Hashable:
        """Sublayers of the same kind of attention work with the same shapes."""
        return "attention", self.config, self.kind

    @property
    def place(self) -> str:
        """The layer it belongs to, and that it is the layer's attention."""
        return f"layers.{self.layer}.attention"

    def forward(self, x_BLM: Tensor, step: Step) -> Tensor:
        """Run all groups under plain autograd."""
        h = self.norm(x_BLM, self.norm_epsilon).to(self.compute_dtype)
        params = dict(self.named_parameters())
        rotations = self._rotations(step, x_BLM.device)
        y: Tensor | None = None
        for group in range(self.n_groups):
            packed = functional.linear(h, self._packed_weight(params, group))
            packed = packed.unflatten(-1, (self.group_size, -1))
            out = self._attend(packed, rotations, group, step)
            part = functional.linear(out.flatten(2), self._output_weight(params, group))
            y = part if y is None else y + part
        assert y is not None
        y = y.to(x_BLM.dtype)
        return seeded_dropout(y, self._dropout(step), step.seed_for(self.layer, 0))

    def accumulate(
        self, params: Tensors, source: Stream, sink: Stream, sign: int, step: Step
    ) -> None:
        """Write sink ± f(norm(source)), group by group."""
        rotations = self._rotations(step, params["output.weight"].device)
        key = ("group", self.alike, step.shapes, type(source), source.norm_scale)
        for group in range(self.n_groups):
            repeat(key, self._group_forward, params, source, sink, sign, step, rotations, group)

    def _group_forward(
        self,
        params: Tensors,
        source: Stream,
        sink: Stream,
        sign: int,
        step: Step,
        rotations: Tensor | None,
        group: int,
    ) -> None:
        """Write sink ± one group's share."""
        packed = self._project(params, group, source, step)
        with torch.no_grad():
            out = self._attend(packed, rotations, group, step)
        del packed
        self._add_output(params, group, out, sink, sign, step)

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
        """Run each group of heads forward and backward, one group after another."""
        rotations = self._rotations(step, dy_PM.device)
        key = ("group sweep", self.alike, step.shapes, type(source), source.norm_scale)
        for group in range(self.n_groups):
            repeat(
                (key, undo is None),
                self._group_sweep,
                *(params, grads, source, dy_PM, dx_PM, step, undo, rotations, group),
            )

    def _group_sweep(
        self,
        params: Tensors,
        grads: Tensors,
        source: Stream,
        dy_PM: Tensor,
        dx_PM: Tensor,
        step: Step,
        undo: Stream | None,
        rotations: Tensor | None,
        group: int,
    ) -> None:
        """Run one group of heads forward and backward."""
        packed = self._project(params, group, source, step).requires_grad_()
        with torch.enable_grad():
            out = self._attend(packed, rotations, group, step)
        if undo is not None:
            self._add_output(params, group, out.detach(), undo, -1, step)
        dout = self._output_backward(params, grads, group, out.detach(), dy_PM, step)
        (dpacked,) = torch.autograd.grad(out, packed, dout)
        del packed, out, dout
        self._project_backward(params, grads, group, source, dpacked, dx_PM)

    def _attend(
        self, packed_BLGc: Tensor, rotations: Tensor | None, group: int, step: Step
    ) -> Tensor:
        """Return one group's attention, [B, L, G, D], by the layer's kind."""
        settings, valid = self.settings, step.valid_BL
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
        buckets = hash_queries(
            packed_BLGc.detach(), rotations[heads], self._factors(step), settings.d_head
        )
        return lsh_attention(packed_BLGc, buckets, settings, valid, kernel)

    def _factors(self, step: Step) -> tuple[int, ...]:
        return bucket_factors(self.config.n_buckets, step.length, self.config.chunk_length)

    def _rotations(self, step: Step, device: torch.device) -> Tensor | None:
        """Draw the step's rotations [H, D, R, K]; they are the same for every part and every
        recomputation.
        """
        if self.kind is not Attention.LSH:
            return None
        config, fixed = self.config, self.config.hash_seed
        seed = fixed if fixed is not None else step.seed_for(self.layer, 2)
        return draw_rotations(
            config.n_heads,
            config.head_width,
            config.n_hashes,
            self._factors(step),
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

    def _dropout(self, step: Step) -> float:
        return self.config.dropout if step.training else 0.0

    def _row_bytes(self, stream_dtype: torch.dtype) -> int:
        return self.config.d_model * stream_dtype.itemsize

    def _project(self, params: Tensors, group: int, source: Stream, step: Step) -> Tensor:
        """Packed queries (and keys) and values [B, L, G, c] of one group, normalising on the way,
        a piece of the rows at a time: no normalised copy of the whole stream exists."""
        weight = self._packed_weight(params, group)
        n_rows = step.batch * step.length
        packed = weight.new_empty(n_rows, weight.shape[0])
        for rows in small_pieces(n_rows, self._row_bytes(params["norm.weight"].dtype)):
            h = self.normed(params, source, rows).h_PM.to(self.compute_dtype)
            torch.mm(h, weight.t(), out=packed[rows])
        return packed.view(step.batch, step.length, self.group_size, -1)

    def _project_backward(
        self,
        params: Tensors,
        grads: Tensors,
        group: int,
        source: Stream,
        dpacked_BLGc: Tensor,
        dx_PM: Tensor,
    ) -> None:
        """Add the gradients of the group's projections, of the normalisation and of the rows."""
        weight = self._packed_weight(params, group)
        dpacked = dpacked_BLGc.flatten(2).flatten(0, 1)
        dweight = torch.zeros_like(weight, dtype=dx_PM.dtype)
        for rows in small_pieces(dpacked.shape[0], self._row_bytes(dx_PM.dtype)):
            saved = self.normed(params, source, rows)
            h = saved.h_PM.to(self.compute_dtype)
            dweight.add_(dpacked[rows].t() @ h)
            dh = (dpacked[rows] @ weight).to(dx_PM.dtype)
            dx_PM[rows].add_(self.normed_backward(params, grads, source, dh, saved))
        parts = dweight.unflatten(0, (self.group_size, len(self.projections), -1)).unbind(1)
        for name, part in zip(self.projections, parts, strict=True):
            grads[f"{name}.weight"][self._heads(group)].add_(part.flatten(0, 1))

    def _add_output(
        self,
        params: Tensors,
        group: int,
        out_BLGD: Tensor,
        sink: Stream,
        sign: int,
        step: Step,
    ) -> None:
        """Write sink ± out · O_g, a piece of the rows at a time."""
        weight = self._output_weight(params, group)
        out = out_BLGD.flatten(2).flatten(0, 1)
        p = self._dropout(step)
        scale = self._dropout_scale(params, step) if p else None
        for rows in small_pieces(out.shape[0], self._row_bytes(params["norm.weight"].dtype)):
            if scale is None:
                sink.add_product_(rows, out[rows], weight.t(), sign)
            else:
                sink.add_(rows, (out[rows] @ weight.t()) * scale[rows], sign)

    def _output_backward(
        self,
        params: Tensors,
        grads: Tensors,
        group: int,
        out_BLGD: Tensor,
        dy_PM: Tensor,
        step: Step,
    ) -> Tensor:
        """Return the gradient [B, L, G, D] of the group's output, and add that of the output
        projection.
        """
        weight = self._output_weight(params, group)
        out = out_BLGD.flatten(2).flatten(0, 1)
        scale = self._dropout_scale(params, step) if self._dropout(step) else None
        dout = torch.empty_like(out)
        dweight = torch.zeros_like(weight, dtype=dy_PM.dtype)
        for rows in small_pieces(out.shape[0], self._row_bytes(dy_PM.dtype)):
            dy = dy_PM[rows] if scale is None else dy_PM[rows] * scale[rows]
            dy = dy.to(self.compute_dtype)
            torch.mm(dy, weight, out=dout[rows])
            dweight.add_(dy.t() @ out[rows])
        grads["output.weight"][:, self._heads(group)].add_(dweight)
        return dout.view_as(out_BLGD)

    def _dropout_scale(self, params: Tensors, step: Step) -> Tensor:
        """Return the sublayer's dropout mask [P, M]; all groups share it, since it applies to their
        sum.
        """
        like = params["norm.weight"].new_empty(step.batch, step.length, self.config.d_model)
        scale = dropout_scale(like, self._dropout(step), step.seed_for(self.layer, 0))
        return scale.flatten(0, 1)
