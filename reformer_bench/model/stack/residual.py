"""Standard residual layers, with every activation kept, or with checkpoints.

y = x + Attention(x); z = y + FeedForward(y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reformer_bench.model.layer import Layer
from reformer_bench.model.stack.parameters import ParameterLoader
from reformer_bench.model.stack.streams import FloatStream
from reformer_bench.model.sublayer import PassContext, Sublayer, Sweep
from reformer_bench.model.tensors import applied


class _RecomputedResidual(torch.autograd.Function):
    """Computes x + f(norm(x)) and keeps its input only."""

    @staticmethod
    def forward(
        ctx: Any,
        sublayer: Sublayer,
        context: PassContext,
        loader: ParameterLoader,
        x_BLM: Tensor,
        *_parameters: Tensor,
    ) -> Tensor:
        ctx.sublayer, ctx.context, ctx.loader = sublayer, context, loader
        ctx.save_for_backward(x_BLM)
        y_BLM = x_BLM.clone(memory_format=torch.contiguous_format)
        source, sink = FloatStream(x_BLM.flatten(0, 1)), FloatStream(y_BLM.flatten(0, 1))
        for _, params in loader.load_each([sublayer]):
            sublayer.accumulate(params, source, sink, context)
        return y_BLM

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (x_BLM,) = ctx.saved_tensors
        dy_BLM = dys[0].contiguous()
        dx_BLM = dy_BLM.clone()
        stored: list[Tensor] = []
        for sublayer, params in ctx.loader.load_each([ctx.sublayer]):
            grads = sublayer.new_grads(params)
            source = FloatStream(x_BLM.flatten(0, 1))
            dy_PM, dx_PM = dy_BLM.flatten(0, 1), dx_BLM.flatten(0, 1)
            sublayer.sweep(Sweep(params, grads, source, dy_PM, dx_PM), ctx.context)
            stored.extend(ctx.loader.store_gradients(grads))
        return None, None, None, dx_BLM, *stored


def recomputed_residual(
    sublayer: Sublayer, x_BLM: Tensor, context: PassContext, loader: ParameterLoader
) -> Tensor:
    """Return x + f(norm(x)), [B, L, M], differentiably; the backward pass recomputes f piece by
    piece.
    """
    parameters = sublayer.parameters()
    return applied(_RecomputedResidual, sublayer, context, loader, x_BLM, *parameters)


def standard_stack(
    layers: Sequence[Layer], x_BLM: Tensor, context: PassContext, loader: ParameterLoader
) -> Tensor:
    """Run plain residual layers, of which autograd keeps what each operator needs.

    A feed-forward sublayer in several chunks is recomputed chunk by chunk: to keep its chunks would
    save nothing.
    """
    for layer in layers:
        x_BLM = x_BLM + layer.attention(x_BLM, context)
        if layer.feed_forward.n_chunks > 1:
            x_BLM = recomputed_residual(layer.feed_forward, x_BLM, context, loader)
        else:
            x_BLM = x_BLM + layer.feed_forward(x_BLM, context)
    return x_BLM


def checkpointed_stack(
    layers: Sequence[Layer], x_BLM: Tensor, context: PassContext, loader: ParameterLoader
) -> Tensor:
    """Run residual layers of which only the inputs are kept; each is recomputed for its backward.

    Each layer has one checkpoint (Chen et al. 2016, with one layer a segment). With chunked
    feed-forward or offloaded parameters each sublayer is a checkpoint of its own.
    """
    for layer in layers:
        if loader.offload:
            for sublayer in layer.sublayers():
                x_BLM = recomputed_residual(sublayer, x_BLM, context, loader)
        elif layer.feed_forward.n_chunks > 1:
            x_BLM = _checkpointed(x_BLM, context, layer.attention)
            x_BLM = recomputed_residual(layer.feed_forward, x_BLM, context, loader)
        else:
            x_BLM = _checkpointed(x_BLM, context, *layer.sublayers())
    return x_BLM


def _checkpointed(x_BLM: Tensor, context: PassContext, *sublayers: Sublayer) -> Tensor:
    def run(x: Tensor) -> Tensor:
        for sublayer in sublayers:
            x = x + sublayer(x, context)
        return x

    if not torch.is_grad_enabled():
        return run(x_BLM)
    # Everything random is drawn from the pass's seed, so no generator's state need be kept.
    recomputed = checkpoint(run, x_BLM, use_reentrant=False, preserve_rng_state=False)
    return cast(Tensor, recomputed)
