"""The interface of the kernels: the rounds of one call go in, output and log-normaliser come out.

The log-normaliser is the logarithm of a token's softmax denominator, summed over the keys that it
sees in all rounds. It is what ties the rounds together: exp(score − log-normaliser) is each key's
share of the combined softmax (paper, section 2, multi-round attention).

B batch, L length, G heads of one group, N = B·G sequences, P = B·L·G rows, D head width, c packed
features of a head (query and value, or query, key and value).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from reformer_bench.model.attention.common import SELF_PENALTY, AttentionSettings
from reformer_bench.model.attention.plan import Bias, ChunkPlan, rounded_self_weights


@dataclass(frozen=True, eq=False)
class Rounds:
    """The rounds of one call of attention: what its forward and its backward pass share."""

    qkv_Pc: Tensor
    """The packed rows; (b, position, g) is row (b · L + position) · G + g."""
    plan: ChunkPlan
    bias: Bias
    settings: AttentionSettings
    batch: int
    heads: int
    first_row_N1: Tensor
    """The row of each sequence's position 0."""

    @staticmethod
    def of(qkv_BLGc: Tensor, plan: ChunkPlan, bias: Bias, settings: AttentionSettings) -> Rounds:
        """Make the rounds of packed rows over a plan for B·G sequences."""
        batch, _, heads, width = qkv_BLGc.shape
        device = qkv_BLGc.device
        # Kernels count on rows without gaps.
        qkv_Pc = qkv_BLGc.reshape(-1, width).contiguous()
        b = torch.arange(batch, device=device).repeat_interleave(heads)
        g = torch.arange(heads, device=device).repeat(batch)
        first_row_N1 = (b * plan.length * heads + g)[:, None]
        return Rounds(qkv_Pc, plan, bias, settings, batch, heads, first_row_N1)

    @property
    def n_sequences(self) -> int:
        """How many sequences there are, N."""
        return self.batch * self.heads

    @property
    def wide_dtype(self) -> torch.dtype:
        """The dtype in which rounds are added up."""
        return wide_dtype(self.qkv_Pc.dtype)

    def by_row(self, values_NL: Tensor) -> Tensor:
        """Put values of sequences in the order of packed rows, [P]."""
        return values_NL.view(self.batch, self.heads, -1).transpose(1, 2).reshape(-1)

    def self_weights(self, alone_NL: Tensor) -> Tensor | None:
        """Return what the value of a token is multiplied by that sees only itself; None for 1."""
        return rounded_self_weights(self.plan, self.settings, alone_NL, self.wide_dtype)

    def without_lone_tokens(self, normaliser_NL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normaliser [N, L], infinite for tokens with no target but themselves, so that
        they contribute nothing, and what part of its output's gradient such a token's value gets.
        """
        alone_NL = sees_only_itself(normaliser_NL)
        share_NL = alone_NL.to(self.wide_dtype)
        weights_NL = self.self_weights(alone_NL)
        if weights_NL is not None:
            share_NL.mul_(weights_NL)
        return normaliser_NL.masked_fill(alone_NL, torch.inf), share_NL


class ChunkKernel(Protocol):
    """A way to compute attention inside chunks. It is a frozen dataclass."""

    def forward(self, rounds: Rounds) -> tuple[Tensor, Tensor]:
        """Return the output [B, L, G, D], in the dtype of the rows, and the log-normaliser of every
        row over all rounds, in the wide dtype and in the kernel's own order.
        """
        ...

    def backward(
        self, rounds: Rounds, dout_PD: Tensor, out_PD: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Return the gradient [P, c] of the packed rows, in their dtype.

        It is given the output and the log-normaliser of all rounds together, so that each round's
        gradients are those of the combination. A token without any target but itself has its value
        for its output, exactly, whatever the rounding of a normaliser near the penalty.
        """
        ...


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and normalisers for rows of a dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sees_only_itself(normaliser_NL: Tensor) -> Tensor:
    """Say which tokens have no target but themselves in any round, by their penalty; [N, L]."""
    return normaliser_NL < -SELF_PENALTY / 2
