"""Reversible layers: two streams and nothing else is kept, and the backward pass undoes the layers.

y₁ = x₁ + Attention(x₂); y₂ = x₂ + FeedForward(y₁) (paper, section 3; Gomez et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from reformer_bench.model.head import n_counted
from reformer_bench.model.layer import Layer
from reformer_bench.model.stack.parameters import ParameterLoader
from reformer_bench.model.stack.streams import FixedStream, FloatStream, RangeWatch, Stream
from reformer_bench.model.sublayer import PassContext, Sublayer, Sweep
from reformer_bench.model.tensors import applied, detached_parameters

if TYPE_CHECKING:
    from reformer_bench.model.lm import ReformerLM

Streams = tuple[Stream, Stream]
OnReconstructed = Callable[[Streams], None]

_EVERY_ROW = slice(None)


def watch_for(layers: Sequence[Layer], like: Tensor) -> RangeWatch:
    """Return what watches the fixed-point streams of one forward pass, of the dtype and on the
    device of ``like``.
    """
    return RangeWatch.over(["embedding", *(s.place for s in _sublayers(layers))], like)


def _sublayers(layers: Sequence[Layer]) -> list[Sublayer]:
    """Return all sublayers in the order of the forward pass."""
    return [sublayer for layer in layers for sublayer in layer.sublayers()]


def _open_streams(x_PM: Tensor, watch: RangeWatch | None) -> Streams:
    """Return both streams, each the embedding to begin with, as fixed-point numbers where they are
    watched; the memory of ``x`` may be taken over.
    """
    if watch is None:
        return FloatStream(x_PM), FloatStream(x_PM.clone())
    first = FixedStream.of(x_PM, watch)
    watch.next_place()
    return first, first.copy()


def _run_forward(
    layers: Sequence[Layer],
    streams: Streams,
    context: PassContext,
    loader: ParameterLoader,
    watch: RangeWatch | None,
) -> Streams:
    """Replace the streams' contents by what the layers make of them, and return them unwatched."""
    for i, (sublayer, params) in enumerate(loader.load_each(_sublayers(layers))):
        sink, source = streams if i % 2 == 0 else streams[::-1]
        sublayer.accumulate(params, source, sink, context)
        if watch is not None:
            watch.next_place()
    return streams[0].unwatched(), streams[1].unwatched()


def _run_backward(
    layers: Sequence[Layer],
    streams: Streams,
    dstreams: tuple[Tensor, Tensor],
    context: PassContext,
    loader: ParameterLoader,
) -> list[Tensor]:
    """Undo the layers, last first, and turn, in place, the gradients of what they gave into those
    of what they took. Return the parameters' gradients in the order of the layers' parameters.
    """
    stored: list[list[Tensor]] = []
    for i, (sublayer, params) in enumerate(loader.load_each(_sublayers(layers)[::-1])):
        sink, source = streams if i % 2 else streams[::-1]
        dy, dx = dstreams if i % 2 else dstreams[::-1]
        grads = sublayer.new_grads(params)
        sublayer.sweep(Sweep(params, grads, source, dy, dx, undo=sink), context)
        stored.append(loader.store_gradients(grads))
        # Where they were copied to the host, the next sublayer's need not lie beside them.
        del grads
    return [grad for grads in reversed(stored) for grad in grads]


class _ReversibleStack(torch.autograd.Function):
    """A function from activations to both streams, which keeps the two streams."""

    @staticmethod
    def forward(
        ctx: Any,
        layers: Sequence[Layer],
        context: PassContext,
        loader: ParameterLoader,
        watch: RangeWatch | None,
        x_BLM: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:
        streams = _open_streams(x_BLM.flatten(0, 1).clone(), watch)
        ctx.streams = streams = _run_forward(layers, streams, context, loader, watch)
        ctx.layers, ctx.context, ctx.loader = layers, context, loader
        ctx.guard = None if watch is None else watch.guard()
        values = tuple(s.values(_EVERY_ROW).clone().view_as(x_BLM) for s in streams)
        return values if ctx.guard is None else tuple(x.add_(ctx.guard) for x in values)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Any, ...]:
        # Copies, so that a second backward pass over a retained graph finds everything unchanged.
        first, second = (stream.copy() for stream in ctx.streams)
        d1, d2 = (dy.flatten(0, 1).clone() for dy in dys)
        if ctx.guard is not None:
            d1.add_(ctx.guard)
            d2.add_(ctx.guard)
        grads = _run_backward(ctx.layers, (first, second), (d1, d2), ctx.context, ctx.loader)
        return None, None, None, None, d1.add_(d2).view_as(dys[0]), *grads


def reversible_stack(
    layers: Sequence[Layer],
    x_BLM: Tensor,
    context: PassContext,
    loader: ParameterLoader,
    watch: RangeWatch | None,
) -> tuple[Tensor, Tensor]:
    """Return both streams [B, L, M] after the layers, differentiably; NaN if the watch saw a number
    that fixed-point streams can't hold.
    """
    parameters = [p for layer in layers for p in layer.parameters()]
    streams: Any = applied(_ReversibleStack, layers, context, loader, watch, x_BLM, *parameters)
    return cast(tuple[Tensor, Tensor], streams)


class _ReversibleLoss(torch.autograd.Function):
    """A function from tokens to the loss: embedding, layers and head in one, so that the backward
    pass holds two streams, their gradients, the parameters' gradients and one piece of a sublayer,
    and nothing else.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: ReformerLM,
        context: PassContext,
        watch: RangeWatch | None,
        tokens_BL: Tensor,
        targets_BL: Tensor,
        *_: Tensor,
    ) -> Tensor:
        embedded = model.embed(detached_parameters(model.embedding), tokens_BL, context)
        streams = _open_streams(embedded.flatten(0, 1), watch)
        del embedded
        streams = _run_forward(model.stack_layers, streams, context, model.loader, watch)
        head = detached_parameters(model.output)
        total = model.output.loss_sum(head, streams, targets_BL.flatten())
        ctx.streams = streams
        ctx.model, ctx.context = model, context
        ctx.tokens_BL, ctx.targets_BL = tokens_BL, targets_BL
        ctx.guard = None if watch is None else watch.guard()
        mean = total / n_counted(targets_BL)
        return mean if ctx.guard is None else mean.add_(ctx.guard)

    @staticmethod
    def backward(ctx: Any, *dloss: Tensor) -> tuple[Any, ...]:
        model: ReformerLM = ctx.model
        context, streams = ctx.context, ctx.streams
        if streams is None:
            raise RuntimeError(
                "the streams of this loss were used up by its first backward pass; compute the "
                "loss again for another"
            )
        ctx.streams = None
        table = model.embedding.tokens.weight.detach()
        d1, d2 = (table.new_empty(context.n_rows, table.shape[1]) for _ in range(2))
        head = detached_parameters(model.output)
        head_grads = model.output.new_grads(head)
        scale = dloss[0] / n_counted(ctx.targets_BL)
        if ctx.guard is not None:
            scale.add_(ctx.guard)
        targets_P = ctx.targets_BL.flatten()
        model.output.loss_sweep(head, head_grads, streams, targets_P, scale, (d1, d2))
        grads = _run_backward(model.stack_layers, streams, (d1, d2), context, model.loader)
        if model.on_reconstructed is not None:
            model.on_reconstructed(streams)
        del streams
        dx_BLM = d1.add_(d2).view(context.batch, context.length, -1)
        del d2
        embedding_grads = model.embed_backward(ctx.tokens_BL, dx_BLM, context)
        return None, None, None, None, None, *embedding_grads, *grads, *head_grads.values()


def reversible_loss(
    model: ReformerLM,
    context: PassContext,
    watch: RangeWatch | None,
    tokens_BL: Tensor,
    targets_BL: Tensor,
) -> Tensor:
    """Return the mean cross-entropy of a reversible model, differentiable once; NaN if the watch
    saw a number that fixed-point streams can't hold.
    """
    parameters = model.parameters()
    return applied(_ReversibleLoss, model, context, watch, tokens_BL, targets_BL, *parameters)
