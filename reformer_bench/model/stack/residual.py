"""Standard residual layers, with every activation kept, or with checkpoints.

y = x + Attention(x); z = y + FeedForward(y).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reformer_bench.model.stack.feed import ParameterFeed
from reformer_bench.model.stack.layer import Layer
from reformer_bench.model.stack.partwise import partwise_residual
from reformer_bench.model.step import Step
from reformer_bench.model.sublayer import Sublayer


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
