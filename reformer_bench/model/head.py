"""The last stage: merge the streams, normalise, project to the vocabulary, cross-entropy.

P rows (batch · length), p rows of a slice, W width of the merged streams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model.norm import Norm, Normed, normalise, normalise_backward
from reformer_bench.model.stack.streams import FloatStream, Stream
from reformer_bench.model.tensors import Tensors, applied, by_parameter_name, row_slices, zero_grads
from reformer_bench.schema.model import ModelConfig

IGNORED_TARGET = -100
"""A target of this value takes no part in the loss."""


class OutputHead(nn.Module):
    """Computes logits and loss of one or two streams, the loss over ``loss_chunks`` slices."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = Norm(config.output_width)
        self.head = nn.Linear(config.output_width, config.vocab_size)
        self.norm_epsilon = config.norm_epsilon
        self.concat = config.merge_streams == "concat"
        self.n_chunks = config.loss_chunks
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
        total = torch.zeros((), dtype=params["norm.weight"].dtype, device=targets_P.device)
        for rows in row_slices(targets_P.shape[0], self.n_chunks):
            logits = self._logits(params, self._normed(params, streams, rows).h_PM)
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
        parameters to ``grads``. ``dloss`` is the gradient of the sum.
        """
        weight = params["head.weight"].to(self.compute_dtype)
        for rows in row_slices(targets_P.shape[0], self.n_chunks):
            saved = self._normed(params, streams, rows)
            logits = self._logits(params, saved.h_PM)
            counted, picked = _targets(targets_P[rows])
            dlogits = logits.sub_(logits.logsumexp(-1, keepdim=True)).exp_()
            minus_one = torch.full_like(picked[:, None], -1, dtype=dlogits.dtype)
            dlogits.scatter_add_(-1, picked[:, None], minus_one)
            dlogits.mul_((counted * dloss)[:, None])
            grads["head.bias"].add_(dlogits.sum(0))
            dlogits = dlogits.to(self.compute_dtype)
            grads["head.weight"].add_(dlogits.t() @ saved.h_PM.to(self.compute_dtype))
            dh = (dlogits @ weight).to(saved.h_PM.dtype)
            del logits, dlogits
            dx = normalise_backward(params, grads, dh, saved)
            self._write_split(dx, [d[rows] for d in dstreams])

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

    def _normed(self, params: Tensors, streams: Sequence[Stream], rows: slice) -> Normed:
        merged = self.merge([stream.read(rows) for stream in streams])
        return normalise(params, merged, self.norm_epsilon, streams[0].norm_scale)

    def _logits(self, params: Tensors, h_pW: Tensor) -> Tensor:
        """Return the logits [p, V] in the streams' dtype."""
        dtype = self.compute_dtype
        weight, bias = params["head.weight"].to(dtype), params["head.bias"].to(dtype)
        return torch.addmm(bias, h_pW.to(dtype), weight.t()).to(h_pW.dtype)


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
        grads = zero_grads(params)
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
