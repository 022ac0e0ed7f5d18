"""Computes x + f(x) of one sublayer whose parts are recomputed, one at a time, in the backward
pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.repeats import repeat
from reformer_bench.model.stack.feed import ParameterFeed, zero_grads
from reformer_bench.model.step import Step
from reformer_bench.model.streams import FloatStream
from reformer_bench.model.sublayer import Sublayer


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
