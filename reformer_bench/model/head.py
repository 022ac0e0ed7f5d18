"""The last stage: merge the streams, normalise, project to the vocabulary, cross-entropy.

P rows (batch · length), p rows of a slice, W width of the merged streams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.fused import add_column_sums, fuses_rows
from reformer_bench.model.norm import (
    Norm,
    Normed,
    NormedStreams,
    normalise,
    normalise_backward,
    normalise_streams,
    normalise_streams_backward,
)
from reformer_bench.model.sizes import loss_row_bytes, pieces_on_gpu
from reformer_bench.model.stack.streams import FloatStream, Stream
from reformer_bench.model.tensors import (
    Tensors,
    add_product_,
    applied,
    by_parameter_name,
    row_slices,
    zero_grads,
)
from reformer_bench.schema.model import ModelConfig, Residual

IGNORED_TARGET = -100
"""A target of this value takes no part in the loss."""
_PROJECTION = ("head.weight", "head.bias")


class OutputHead(nn.Module):
    """Computes logits and loss of one or two streams, the loss over ``loss_chunks`` slices;
    over fewer on a GPU where the model's peak is that of attention.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = Norm(config.output_width)
        self.head = nn.Linear(config.output_width, config.vocab_size)
        self.norm_epsilon = config.norm_epsilon
        self.concat = config.merge_streams == "concat"
        self.normalises_streams = self.concat or config.residual is not Residual.REVERSIBLE
        self.n_chunks = config.loss_chunks
        self.n_pieces_on_gpu = pieces_on_gpu(config, config.loss_chunks, loss_row_bytes(config))
        self.compute_dtype = dtype

    def merge(self, streams: Sequence[Tensor]) -> Tensor:
        """Return one tensor [..., W] of the streams: side by side, or their mean."""
        if len(streams) == 1:
            return streams[0]
        if self.concat:
            return torch.cat(tuple(streams), dim=-1)
        return (streams[0] + streams[1]) * 0.5

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Return the logits [B, L, V] of merged streams, under plain autograd."""
        weight, bias = self.head.weight, self.head.bias
        dtype = self.compute_dtype
        h = self.norm(x_BLW, self.norm_epsilon).to(dtype)
        return functional.linear(h, weight.to(dtype), bias.to(dtype)).to(x_BLW.dtype)

    def loss_sum(self, params: Tensors, streams: Sequence[Stream], targets_P: Tensor) -> Tensor:
        """Return the sum of cross-entropies, a slice of the rows at a time."""
        params, dtype = self._narrowed(params), params["norm.weight"].dtype
        total = torch.zeros((), dtype=dtype, device=targets_P.device)
        for rows in self._slices(params, targets_P.shape[0]):
            logits = self._logits(params, self._normed(params, streams, rows)[0], dtype)
            counted, picked = _targets(targets_P[rows])
            losses = logits.logsumexp(-1) - logits.gather(-1, picked[:, None])[:, 0]
            total.add_((losses * counted).sum())
        return total

    def loss_sweep(
        self,
        params: Tensors,
        grads: Tensors,
        streams: Sequence[Stream],
        targets_P: Tensor,
        dloss: Tensor,
        dstreams: Sequence[Tensor],
    ) -> None:
        """Recompute each slice and write its gradients over ``dstreams`` [P, M]; add those of the
        parameters to ``grads``, by ``new_grads``. ``dloss`` is the gradient of the sum.
        """
        params, dtype = self._narrowed(params), params["norm.weight"].dtype
        fused = self._fused(params)
        weight = params["head.weight"].to(self.compute_dtype)
        for rows in self._slices(params, targets_P.shape[0]):
            fresh = fused and rows.start == 0
            h, saved = self._normed(params, streams, rows)
            logits = self._logits(params, h, dtype)
            counted, picked = _targets(targets_P[rows])
            dlogits = logits.sub_(logits.logsumexp(-1, keepdim=True)).exp_()
            minus_one = torch.full_like(picked[:, None], -1, dtype=dlogits.dtype)
            dlogits.scatter_add_(-1, picked[:, None], minus_one)
            dlogits.mul_((counted * dloss)[:, None])
            if fresh:
                torch.sum(dlogits, 0, out=grads["head.bias"])
            else:
                grads["head.bias"].add_(dlogits.sum(0))
            dlogits = dlogits.to(self.compute_dtype)
            into = [d[rows] for d in dstreams]
            if isinstance(saved, NormedStreams):
                add_product_(grads["head.weight"], dlogits.t(), h, fresh=fresh)
                dh = dlogits @ weight
                del logits, dlogits
                sums = normalise_streams_backward(params, grads, dh, saved, into, add=False)
                add_column_sums(sums, fresh=fresh)
                continue
            grads["head.weight"].add_(dlogits.t() @ h.to(self.compute_dtype))
            dh = (dlogits @ weight).to(dtype)
            del logits, dlogits
            self._write_split(normalise_backward(params, grads, dh, saved), into)

    def new_grads(self, params: Tensors) -> Tensors:
        """Make room for the gradients of parameters: zeros to be added to, or where programs are
        fused, tensors that are written first.
        """
        if not self._fused(params):
            return zero_grads(params)
        return {name: torch.empty_like(value) for name, value in params.items()}

    def _fused(self, params: Tensors) -> bool:
        """Say whether fused programs normalise; they take streams side by side, not their mean."""
        weight = params["norm.weight"]
        return self.normalises_streams and fuses_rows(weight, len(weight))

    def _narrowed(self, params: Tensors) -> Tensors:
        """Return the parameters, the projection's in the dtype that computes where they are kept
        for all slices.
        """
        if not self._fused(params):
            return params
        narrow = {name: params[name].to(self.compute_dtype) for name in _PROJECTION}
        return {**params, **narrow}

    def _slices(self, params: Tensors, n_rows: int) -> Iterator[slice]:
        n_chunks = self.n_pieces_on_gpu if self._fused(params) else self.n_chunks
        return row_slices(n_rows, n_chunks)

    def _write_split(self, dx: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradients of the streams, given that of what they were merged to."""
        if len(into) == 1:
            into[0].copy_(dx)
        elif self.concat:
            for d, half in zip(into, dx.chunk(2, dim=-1), strict=True):
                d.copy_(half)
        else:
            for d in into:
                d.copy_(dx).mul_(0.5)

    def _normed(
        self, params: Tensors, streams: Sequence[Stream], rows: slice
    ) -> tuple[Tensor, Normed | NormedStreams]:
        """Return normalised rows, and what their backward pass needs."""
        scale = streams[0].norm_scale
        if self._fused(params):
            stored = [stream.stored(rows) for stream in streams]
            found = normalise_streams(params, stored, self.norm_epsilon, scale, self.compute_dtype)
            return found.h_PW, found
        merged = self.merge([stream.read(rows) for stream in streams])
        plain = normalise(params, merged, self.norm_epsilon, scale)
        return plain.h_PM, plain

    def _logits(self, params: Tensors, h_pW: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the logits [p, V] in a dtype, the streams'."""
        narrow = self.compute_dtype
        weight, bias = params["head.weight"].to(narrow), params["head.bias"].to(narrow)
        return torch.addmm(bias, h_pW.to(narrow), weight.t()).to(dtype)


class _ChunkedLoss(torch.autograd.Function):
    """Computes the mean cross-entropy of one stream of floats; logits exist for a slice of the rows
    at a time.
    """

    @staticmethod
    def forward(
        ctx: Any, head: OutputHead, x_BLM: Tensor, targets_BL: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.head = head
        ctx.save_for_backward(x_BLM, targets_BL, *tensors)
        params = by_parameter_name(head, tensors)
        total = head.loss_sum(params, [FloatStream(x_BLM.flatten(0, 1))], targets_BL.flatten())
        return total / n_counted(targets_BL)

    @staticmethod
    def backward(ctx: Any, *dloss: Tensor) -> tuple[Tensor | None, ...]:
        x_BLM, targets_BL, *tensors = ctx.saved_tensors
        params = by_parameter_name(ctx.head, tensors)
        grads = ctx.head.new_grads(params)
        dx = torch.empty_like(x_BLM, memory_format=torch.contiguous_format)
        ctx.head.loss_sweep(
            params,
            grads,
            [FloatStream(x_BLM.flatten(0, 1))],
            targets_BL.flatten(),
            dloss[0] / n_counted(targets_BL),
            [dx.flatten(0, 1)],
        )
        return None, dx, None, *grads.values()


def chunked_loss(head: OutputHead, x_BLM: Tensor, targets_BL: Tensor) -> Tensor:
    """Return the mean cross-entropy, differentiably, with logits for one of ``loss_chunks`` slices
    of the rows at a time.
    """
    return applied(_ChunkedLoss, head, x_BLM, targets_BL, *head.parameters())


def n_counted(targets: Tensor) -> Tensor:
    """Count the targets that take part in the loss; at least 1."""
    return (targets != IGNORED_TARGET).sum().clamp_(min=1)


def _targets(targets_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return which targets take part, and for each a class that can be gathered."""
    return targets_p != IGNORED_TARGET, targets_p.clamp(min=0)
