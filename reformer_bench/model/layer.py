"""A layer: an attention and a feed-forward sublayer."""

from __future__ import annotations

import torch
from torch import nn

from reformer_bench.model.attention import AttentionSublayer
from reformer_bench.model.feed_forward import FeedForwardSublayer
from reformer_bench.model.sublayer import Sublayer
from reformer_bench.schema.model import ModelConfig


class Layer(nn.Module):
    """Holds the two sublayers; the stack decides what they are added to."""

    def __init__(self, config: ModelConfig, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention = AttentionSublayer(config, layer, dtype)
        self.feed_forward = FeedForwardSublayer(config, layer, dtype)

    def sublayers(self) -> tuple[Sublayer, Sublayer]:
        """Return the sublayers in the order of the forward pass."""
        return self.attention, self.feed_forward
