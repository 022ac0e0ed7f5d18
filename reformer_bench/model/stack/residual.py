"""Standard residual layers, with every activation kept, or with checkpoints.

y = x + Attention(x); z = y + FeedForward(y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reformer_bench.model.layer import Layer
from reformer_bench.model.repeats import repeat
from reformer_bench.model.stack.parameters import ParameterFeed, zero_grads
from reformer_bench.model.stack.streams import FloatStream
from reformer_bench.model.sublayer import Step, Sublayer


class _Partwise(torch.autograd.Function):
    """A function that keeps its input only."""

    @staticmethod
    def forward(
        ctx: Any, sublayer: Sublayer, step: Step, feed: ParameterFeed, x_BLM: Tensor, *__: Tensor
    ) -> Tensor:
        ctx.sublayer, ctx.step, ctx.feed = sublayer, step, feed
        ctx.save_for_backward(x_BLM)
        y_BLM = x_BLM.clone(memory_format=torch.contiguous_format)
        source, sink = FloatStream(x_BLM.flatten(0, 1)), FloatStream(y_BLM.flatten(0, 1))
        for _, params in feed.over([sublayer]):
            key = ("accumulate", sublayer.alike, step.shapes, x_BLM.dtype)
            arguments = (params, source, sink, 1, step)
            repeat(key, sublayer.accumulate, *arguments, place=sublayer.place)
        return y_BLM

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (x_BLM,) = ctx.saved_tensors
        dy_BLM = dys[0].contiguous()
        dx_BLM = dy_BLM.clone()
        grads: list[Tensor] = []
        for sublayer, params in ctx.feed.over([ctx.sublayer]):
            room = zero_grads(params)
            source = FloatStream(x_BLM.flatten(0, 1))
            dy_PM, dx_PM = dy_BLM.flatten(0, 1), dx_BLM.flatten(0, 1)
            key = ("sweep", sublayer.alike, ctx.step.shapes, x_BLM.dtype)
            arguments = (params, room, source, dy_PM, dx_PM, ctx.step)
            repeat(key, sublayer.sweep, *arguments, place=sublayer.place)
            grads.extend(ctx.feed.store(room).values())
        return None, None, None, dx_BLM, *grads


def partwise_residual(sublayer: Sublayer, x_BLM: Tensor, step: Step, feed: ParameterFeed) -> Tensor:
    """Return x + f(norm(x)), [B, L, M], differentiably."""
    return _Partwise.apply(sublayer, step, feed, x_BLM, *sublayer.parameters())


def standard_stack(
    layers: Sequence[Layer], x_BLM: Tensor, step: Step, feed: ParameterFeed
) -> Tensor:
    """Run plain residual layers, of which autograd keeps what each operator needs.

    A feed-forward sublayer in several pieces is recomputed piece by piece: to keep its pieces would
    save nothing.
    """
    for layer in layers:
        x_BLM = x_BLM + layer.attention(x_BLM, step)
        if layer.feed_forward.n_pieces > 1:
            x_BLM = partwise_residual(layer.feed_forward, x_BLM, step, feed)
        else:
            x_BLM = x_BLM + layer.feed_forward(x_BLM, step)
    return x_BLM


def checkpointed_stack(
    layers: Sequence[Layer], x_BLM: Tensor, step: Step, feed: ParameterFeed, *, offload: bool
) -> Tensor:
    """Run residual layers of which only the inputs are kept; each is recomputed for its
    backward.

    Each layer has one checkpoint (Chen et al. 2016, with one layer a segment). With chunked
    feed-forward or offloaded parameters each sublayer is a checkpoint of its own.
    """
    for layer in layers:
        if offload:
            for sublayer in layer.sublayers():
                x_BLM = partwise_residual(sublayer, x_BLM, step, feed)
        elif layer.feed_forward.n_pieces > 1:
            x_BLM = _checkpointed(x_BLM, step, layer.attention)
            x_BLM = partwise_residual(layer.feed_forward, x_BLM, step, feed)
        else:
            x_BLM = _checkpointed(x_BLM, step, *layer.sublayers())
    return x_BLM


def _checkpointed(x_BLM: Tensor, step: Step, *sublayers: Sublayer) -> Tensor:
    def run(x: Tensor) -> Tensor:
        for sublayer in sublayers:
            x = x + sublayer(x, step)
        return x

    if not torch.is_grad_enabled():
        return run(x_BLM)
    # Everything random is drawn from the step's seeds, so no generator's state need be kept.
    return checkpoint(run, x_BLM, use_reentrant=False, preserve_rng_state=False)
