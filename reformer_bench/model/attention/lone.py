"""Tokens that see nothing but themselves, as code that rounds their penalty treats them.

N sequences, R rounds, L length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reformer_bench.model.attention.common import SELF_PENALTY, AttentionSettings
from reformer_bench.model.attention.plan import ChunkPlan


def lone_weights(
    plan: ChunkPlan, settings: AttentionSettings, alone_NL: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """Return what the value of a token without another target is multiplied by, [N, L]; 1
    elsewhere.

    None stands for no factor. Otherwise it is the sum of softmax weights over scores of −1e5 each,
    which isn't 1 because the logarithm of their number is lost in rounding: what transformers
    computes.
    """
    # In a single chunk there is nothing to combine.
    if not settings.round_lone_tokens or plan.n_rounds == 1 or plan.n_chunks == 1:
        return None
    times_NRL = torch.ones_like(plan.order_NRS[..., : plan.length], dtype=dtype)
    if settings.ring:
        chunk_NRL = plan.chunk_of_position_NRL()
        before_NRL = chunk_NRL.roll(1, dims=1)
        times_NRL.add_((chunk_NRL == 0) & (before_NRL == plan.n_chunks - 1))
    logs_NRL = times_NRL.log() - SELF_PENALTY
    # The same rounding inside a round that shows a token to itself twice, then between rounds.
    inside_NRL = times_NRL.mul_((-SELF_PENALTY - logs_NRL).exp_())
    between_NRL = (logs_NRL - logs_NRL.logsumexp(1, keepdim=True)).exp_()
    return (inside_NRL * between_NRL).sum(1).masked_fill_(~alone_NL, 1.0)
