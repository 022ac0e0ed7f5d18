"""Reversible layers: two streams and nothing else is kept, and the backward pass undoes
the layers.

y₁ = x₁ + Attention(x₂); y₂ = x₂ + FeedForward(y₁) (paper, section 3; Gomez et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.head import n_counted
from reformer_bench.model.layer import Layer
from reformer_bench.model.repeats import repeat
from reformer_bench.model.stack.parameters import ParameterFeed, zero_grads
from reformer_bench.model.stack.streams import FixedStream, FloatStream, RangeWatch
from reformer_bench.model.sublayer import Step, Sublayer

Streams = tuple[FixedStream, FixedStream] | tuple[FloatStream, FloatStream]


def open_streams(x_PM: Tensor, watch: RangeWatch | None) -> Streams:
    """Return both streams, each the embedding to begin with, as fixed-point numbers where they are
    watched; the memory of ``x`` may be taken over.
    """
    if watch is None:
        return FloatStream(x_PM), FloatStream(x_PM.clone())
    first = FixedStream(x_PM, watch)
    watch.next_place()
    return first, first.copy()


def watch_for(layers: Sequence[Layer], x: Tensor, *, exact: bool) -> RangeWatch | None:
    """Return what watches the streams of one forward pass, or None where they are floats, in which
    a NaN or an infinity shows by itself.
    """
    places = ["embedding", *(sublayer.place for sublayer in _order(layers))]
    return RangeWatch(places, x) if exact else None


def run_forward(layers: Sequence[Layer], streams: Streams, step: Step, feed: ParameterFeed) -> None:
    """Replace the streams' contents by what the layers make of them."""
    for i, (sublayer, params) in enumerate(feed.over(_order(layers))):
        sink, source = streams if i % 2 == 0 else streams[::-1]
        key = ("accumulate", sublayer.alike, step.shapes, type(source))
        repeat(key, sublayer.accumulate, params, source, sink, 1, step, place=sublayer.place)
        if isinstance(sink, FixedStream) and sink.watch is not None:
            sink.watch.next_place()
    for stream in streams:
        if isinstance(stream, FixedStream):
            # Undoing gives back numbers that were in range before.
            stream.watch = None


def run_backward(
    layers: Sequence[Layer],
    streams: Streams,
    dstreams: tuple[Tensor, Tensor],
    step: Step,
    feed: ParameterFeed,
) -> list[Tensor]:
    """Undo the layers, last first, and turn, in place, the gradients of what they gave into those
    of what they took. Return the parameters' gradients in the order of the layers' parameters.
    """
    collected: list[list[Tensor]] = []
    for i, (sublayer, params) in enumerate(feed.over(_order(layers)[::-1])):
        sink, source = streams if i % 2 else streams[::-1]
        dy, dx = dstreams if i % 2 else dstreams[::-1]
        grads = zero_grads(params)
        key = ("undo", sublayer.alike, step.shapes, type(source))
        arguments = (params, grads, source, dy, dx, step, sink)
        repeat(key, sublayer.sweep, *arguments, place=sublayer.place)
        collected.append(list(feed.store(grads).values()))
    return [grad for grads in reversed(collected) for grad in grads]


def _order(layers: Sequence[Layer]) -> list[Sublayer]:
    return [sublayer for layer in layers for sublayer in layer.sublayers()]


class _ReversibleStack(torch.autograd.Function):
    """A function from activations to both streams, which keeps the two streams."""

    @staticmethod
    def forward(
        ctx: Any,
        layers: Sequence[Layer],
        step: Step,
        feed: ParameterFeed,
        watch: RangeWatch | None,
        x_BLM: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, Tensor]:
        streams = open_streams(x_BLM.flatten(0, 1).clone(), watch)
        run_forward(layers, streams, step, feed)
        ctx.layers, ctx.step, ctx.feed, ctx.streams = layers, step, feed, streams
        ctx.guard = None if watch is None else watch.guard()
        every = slice(None)
        first, second = (stream.values(every).clone().view_as(x_BLM) for stream in streams)
        if ctx.guard is not None:
            first.add_(ctx.guard)
            second.add_(ctx.guard)
        return first, second

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Any, ...]:
        # Copies, so that a second backward pass over a retained graph finds everything unchanged.
        streams: Any = tuple(
            s.copy() if isinstance(s, FixedStream) else FloatStream(s.tensor.clone())
            for s in ctx.streams
        )
        d1, d2 = (dy.flatten(0, 1).clone() for dy in dys)
        if ctx.guard is not None:
            d1.add_(ctx.guard)
            d2.add_(ctx.guard)
        grads = run_backward(ctx.layers, streams, (d1, d2), ctx.step, ctx.feed)
        return None, None, None, None, d1.add_(d2).view_as(dys[0]), *grads


def reversible_stack(
    layers: Sequence[Layer],
    x_BLM: Tensor,
    step: Step,
    feed: ParameterFeed,
    watch: RangeWatch | None,
) -> tuple[Tensor, Tensor]:
    """Both streams [B, L, M] after the layers, differentiable; NaN if the watch saw a number that
    fixed-point streams can't hold."""
    parameters = [p for layer in layers for p in layer.parameters()]
    return _ReversibleStack.apply(layers, step, feed, watch, x_BLM, *parameters)


class _ReversibleLoss(torch.autograd.Function):
    """A function from tokens to the loss: embedding, layers and head in one, so that the backward
    pass holds two streams, their gradients, the parameters' gradients and one part, and nothing
    else.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: Any,
        step: Step,
        watch: RangeWatch | None,
        tokens_BL: Tensor,
        targets_BL: Tensor,
        *_: Tensor,
    ) -> Tensor:
        embedded = model.embed(_params(model.embedding), tokens_BL, step)
        streams = open_streams(embedded.flatten(0, 1), watch)
        del embedded
        run_forward(model.layers, streams, step, model.feed)
        total = model.output.loss_sum(_params(model.output), list(streams), targets_BL.flatten())
        ctx.streams = streams
        ctx.model, ctx.step, ctx.tokens_BL, ctx.targets_BL = model, step, tokens_BL, targets_BL
        ctx.guard = None if watch is None else watch.guard()
        mean = total / n_counted(targets_BL)
        return mean if ctx.guard is None else mean.add_(ctx.guard)

    @staticmethod
    def backward(ctx: Any, *dloss: Tensor) -> tuple[Any, ...]:
        model, step, streams = ctx.model, ctx.step, ctx.streams
        if streams is None:
            raise RuntimeError(
                "the streams of this loss were used up by its first backward pass; compute the "
                "loss again for another"
            )
        ctx.streams = None
        like = _params(model.embedding)["tokens.weight"]
        n_rows = step.batch * step.length
        d1, d2 = (like.new_empty(n_rows, like.shape[1]) for _ in range(2))
        head_params = _params(model.output)
        head_grads = zero_grads(head_params)
        scale = dloss[0] / n_counted(ctx.targets_BL)
        if ctx.guard is not None:
            scale.add_(ctx.guard)
        targets_P = ctx.targets_BL.flatten()
        model.output.loss_sweep(head_params, head_grads, list(streams), targets_P, scale, [d1, d2])
        grads = run_backward(model.layers, streams, (d1, d2), step, model.feed)
        if model.on_reconstructed is not None:
            model.on_reconstructed(streams)
        del streams
        dx_BLM = d1.add_(d2).view(step.batch, step.length, -1)
        del d2
        embedding_grads = model.embed_backward(like, ctx.tokens_BL, dx_BLM, step)
        return None, None, None, None, None, *embedding_grads, *grads, *head_grads.values()


def _params(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()}


def reversible_loss(
    model: Any, step: Step, watch: RangeWatch | None, tokens_BL: Tensor, targets_BL: Tensor
) -> Tensor:
    """Mean cross-entropy of a reversible model, differentiable once; NaN if the watch saw a number
    that fixed-point streams can't hold."""
    return _ReversibleLoss.apply(model, step, watch, tokens_BL, targets_BL, *model.parameters())


OnReconstructed = Callable[[Streams], None]
