"""What the kinds of attention share: settings, unit-length keys, what a query may see.

B batch, L length, G heads of one group, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer_bench.schema.model import LshKernel, ModelConfig

SELF_PENALTY = 1e5
"""What is subtracted from a token's score for itself when queries and keys are shared (paper,
section 2)."""

PADDING_PENALTY = 1e9
"""What is subtracted from the score of a padding key; it is finite, so that rows of padding stay
finite."""

KEY_EPSILON = 1e-6
"""What is added to the mean square of a query when it is made a key, so that zero stays finite."""


@dataclass(frozen=True)
class AttentionSettings:
    """The part of a ModelConfig that one layer's attention needs."""

    d_head: int
    causal: bool
    shared_qk: bool
    scale: float
    chunk_length: int
    attend_across_buckets: bool
    count_duplicates: bool
    ring: bool
    """Whether a round's first chunk looks back to the last chunk of the round before."""
    lsh_kernel: LshKernel
    local: bool = False
    round_lone_tokens: bool = False
    """Whether a token that sees only itself gets its value times rounded weights."""

    @property
    def slots_decide(self) -> bool:
        """Whether, among the keys that a query sees in a sorted order, a later slot is a later
        position and the token itself sits in its own slot only.
        """
        if self.local:
            return self.causal or not self.ring
        return not self.attend_across_buckets or not (self.causal or self.ring)

    @property
    def packed_width(self) -> int:
        """How many features a head has in a packed tensor: query and value, or all three."""
        return (2 if self.shared_qk else 3) * self.d_head

    @staticmethod
    def of(config: ModelConfig, layer: int) -> AttentionSettings:
        """Return the settings of a layer."""
        shared = config.shares_qk(layer)
        plain = shared and config.shared_qk_scale == "none"
        local = config.kind(layer) == "local"
        return AttentionSettings(
            d_head=config.head_width,
            causal=config.causal,
            shared_qk=shared,
            scale=1.0 if plain else 1 / math.sqrt(config.head_width),
            chunk_length=config.local_chunk_length if local else config.chunk_length,
            attend_across_buckets=config.attend_across_buckets,
            count_duplicates=config.count_duplicates,
            ring=config.look_back == "ring",
            lsh_kernel=config.lsh_kernel,
            local=local,
            round_lone_tokens=config.lone_tokens == "rounded",
        )


def unit_keys(q: Tensor) -> Tensor:
    """Make keys of unit length from queries [..., D]: k = q / ‖q‖ (paper, section 2, shared QK).

    It divides by the root mean square with an epsilon, as transformers does.
    """
    return q * inverse_length(q)


def inverse_length(q: Tensor) -> Tensor:
    """Return what unit_keys multiplies q [..., D] by, [..., 1]."""
    length = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    return torch.rsqrt(length.square().add(KEY_EPSILON * q.shape[-1]))


def unit_keys_backward(dk: Tensor, k: Tensor, inverse_length: Tensor) -> Tensor:
    """Return the gradient [..., D] with respect to q of k = unit_keys(q), given that of k.

    Moving q along k leaves k as it is: (dk − k (k·dk)) / ‖q‖.
    """
    along = torch.linalg.vecdot(k, dk).unsqueeze(-1)
    return torch.addcmul(dk, k, along, value=-1).mul_(inverse_length)


def unpack(qkv_BLGc: Tensor, settings: AttentionSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values [B, G, L, D], as views where they can be, differentiably."""
    heads = qkv_BLGc.transpose(1, 2).split(settings.d_head, dim=-1)
    if settings.shared_qk:
        return heads[0], unit_keys(heads[0]), heads[1]
    return heads[0], heads[1], heads[2]


def hide_unseen_(
    scores: Tensor, settings: AttentionSettings, valid_BL: Tensor | None, first_query: int = 0
) -> Tensor:
    """Lower, in place, the scores [B, G, Lq, Lk] of what the queries may not see.

    Queries are the positions from ``first_query`` on, keys those from 0 on.
    """
    n_queries, n_keys = scores.shape[-2:]
    if settings.causal:
        future = torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores.device)
        scores.masked_fill_(future.triu_(first_query + 1), -math.inf)
    if settings.shared_qk:
        scores.diagonal(first_query, -2, -1).sub_(SELF_PENALTY)
    if valid_BL is not None:
        padding = (~valid_BL[:, :n_keys]).to(scores.dtype) * PADDING_PENALTY
        scores.sub_(padding[:, None, None, :])
    return scores
