"""The sorted order of each round, cut into chunks: which rows a chunk holds and may see.

N sequences, R rounds, L length, C chunk length, S = C + L rounded up to whole chunks: slots of
the sorted order with one chunk before the first, which the first chunk looks back to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from reformer_bench.model.attention.common import SELF_PENALTY, AttentionSettings

# Negative codes: what carries one is seen only by its like, and nothing real is.
PADDING_TOKEN = -1
NO_SLOT = -2
EMPTY_SLOT = -3
"""The code of a slot at the end of a round that holds no position."""


@dataclass(frozen=True, eq=False)
class ChunkPlan:
    """The plan of a forward pass and its backward pass; it holds integers only."""

    position_NRS: Tensor
    """The position that sits in each slot, int64 (int32 where Triton's programs made it); slots of
    padding hold position 0."""
    code_NRS: Tensor
    """What decides who sees whom, int32: a query sees only keys of its own code. It is the bucket,
    or one code for all; padding tokens and empty slots have negative codes, each its own, because
    an empty slot holds a copy of position 0, whose gradient must not reach padding."""
    chunk_length: int
    length: int

    @property
    def n_rounds(self) -> int:
        """The number of hash rounds."""
        return self.position_NRS.shape[1]

    @property
    def n_chunks(self) -> int:
        """The number of chunks in a round."""
        return self.position_NRS.shape[2] // self.chunk_length - 1

    @property
    def n_empty(self) -> int:
        """The number of slots at the end of a round that hold no position."""
        return self.n_chunks * self.chunk_length - self.length

    def _by_position(self, values_NRS: Tensor) -> Tensor:
        """Put values of slots, [N, R, L], at the positions that sit in them."""
        own = slice(self.chunk_length, self.chunk_length + self.length)
        positions = self.position_NRS[..., own].long()
        return torch.empty_like(values_NRS[..., own]).scatter_(-1, positions, values_NRS[..., own])

    def slot_of_position_NL(self, r: int) -> Tensor:
        """Return where each position sits in a round's sorted order, int64, without counting the
        chunk before the first.
        """
        own = slice(self.chunk_length, self.chunk_length + self.length)
        positions = self.position_NRS[:, r, own]
        slots = torch.arange(self.length, device=positions.device).expand_as(positions)
        return torch.empty_like(positions).scatter_(-1, positions, slots)

    def chunk_of_position_NRL(self) -> Tensor:
        """Return the chunk of each position in each round, int64."""
        slots = torch.arange(self.position_NRS.shape[-1], device=self.position_NRS.device)
        chunks = (slots // self.chunk_length - 1).expand_as(self.position_NRS)
        return self._by_position(chunks)

    def code_of_position_NRL(self) -> Tensor:
        """Return the code of each position in each round, int32."""
        return self._by_position(self.code_NRS)


def plan_chunks(
    buckets_NRL: Tensor,
    chunk_length: int,
    *,
    across_buckets: bool,
    ring: bool,
    valid_NL: Tensor | None = None,
) -> ChunkPlan:
    """Sort by (bucket, position), and cut the order into chunks (paper, section 2).

    With ``ring`` the first chunk of a round looks back to the last chunk of the round before, and
    the first round's to the last round's; otherwise it looks back to nothing.
    """
    n, n_rounds, length = buckets_NRL.shape
    if valid_NL is not None:
        # Padding sorts behind every real position.
        past = buckets_NRL.amax() + 1
        buckets_NRL = torch.where(valid_NL[:, None, :], buckets_NRL, past)
    sorted_buckets, positions = buckets_NRL.sort(dim=-1, stable=True)
    code = torch.zeros_like(sorted_buckets) if across_buckets else sorted_buckets
    if valid_NL is not None:
        real = valid_NL[:, None, :].expand(n, n_rounds, length).gather(-1, positions)
        code = torch.where(real, code, PADDING_TOKEN)
    n_empty = -length % chunk_length
    positions = pad(positions, (chunk_length, n_empty))
    code = pad(pad(code, (0, n_empty), value=EMPTY_SLOT), (chunk_length, 0), value=NO_SLOT)
    if ring:
        positions[..., :chunk_length] = positions[..., -chunk_length:].roll(1, dims=1)
        code[..., :chunk_length] = code[..., -chunk_length:].roll(1, dims=1)
        if not across_buckets:
            # Another round's buckets are other sets, whatever their numbers.
            code[..., :chunk_length] = NO_SLOT
    return ChunkPlan(positions, code.to(torch.int32), chunk_length, length)


def sequential_plan(
    length: int,
    chunk_length: int,
    device: torch.device,
    valid_NL: Tensor | None,
    n: int,
    *,
    ring: bool = False,
) -> ChunkPlan:
    """Make chunks of neighbouring positions, for local attention; with ``ring`` the first sees the
    last.
    """
    buckets = torch.zeros(n, 1, length, dtype=torch.int64, device=device)
    plan = plan_chunks(buckets, chunk_length, across_buckets=True, ring=ring)
    if valid_NL is None:
        return plan
    # Padding keeps its place here, so that chunks stay neighbours.
    code = plan.code_NRS.clone()
    code[:, 0, chunk_length : chunk_length + length].masked_fill_(~valid_NL, PADDING_TOKEN)
    if ring:
        code[..., :chunk_length] = code[..., -chunk_length:]
    return ChunkPlan(plan.position_NRS, code, chunk_length, length)


def with_previous(rows_NKC: Tensor) -> Tensor:
    """Return each chunk behind the one before it, a view [N, J, 2C, …] of chunks [N, J+1, C, …]."""
    n, k, c = rows_NKC.shape[:3]
    strides = rows_NKC.stride()
    return rows_NKC.as_strided((n, k - 1, 2 * c, *rows_NKC.shape[3:]), strides)


@dataclass(frozen=True, eq=False)
class Bias:
    """What the biases of one attention call are made from, a block of chunks at a time."""

    zero: Tensor
    never: Tensor
    """The bias of what isn't seen, −∞."""
    constant_CK: Tensor | None
    """The bias of every chunk where slots decide what is seen, [C, 2C]."""
    chunk_and_code_NRL: tuple[Tensor, Tensor] | None
    """Where each position is in all rounds, if a key found in several of them counts once."""

    @staticmethod
    def of(plan: ChunkPlan, settings: AttentionSettings, dtype: torch.dtype) -> Bias:
        """Make what biases of a dtype are made from."""
        c, device = plan.chunk_length, plan.position_NRS.device
        zero = torch.zeros((), dtype=dtype, device=device)
        never = torch.full((), -math.inf, dtype=dtype, device=device)
        constant_CK: Tensor | None = None
        if settings.slots_decide:
            constant_CK = torch.zeros(c, 2 * c, dtype=dtype, device=device)
            if settings.causal:
                later = torch.ones(c, 2 * c, dtype=torch.bool, device=device).triu_(c + 1)
                constant_CK.masked_fill_(later, -math.inf)
            if settings.shared_qk:
                constant_CK.diagonal(c).fill_(-SELF_PENALTY)
        chunk_and_code_NRL: tuple[Tensor, Tensor] | None = None
        if not settings.count_duplicates and plan.n_rounds > 1:
            chunk_and_code_NRL = (plan.chunk_of_position_NRL(), plan.code_of_position_NRL())
        return Bias(zero, never, constant_CK, chunk_and_code_NRL)

    def block(self, plan: ChunkPlan, settings: AttentionSettings, r: int, chunks: slice) -> Tensor:
        """Return the bias [N, J, C, 2C] of a round's chunks."""
        c = plan.chunk_length
        slots = slice(chunks.start * c, (chunks.stop + 1) * c)
        code_NKC = plan.code_NRS[:, r, slots].unflatten(-1, (-1, c)).contiguous()
        seen = code_NKC[:, 1:, :, None] == with_previous(code_NKC)[:, :, None, :]
        if self.constant_CK is not None:
            bias = torch.where(seen, self.constant_CK, self.never)
            if self.chunk_and_code_NRL is None:
                return bias
        position_NKC = plan.position_NRS[:, r, slots].unflatten(-1, (-1, c)).contiguous()
        query, key = position_NKC[:, 1:, :, None], with_previous(position_NKC)[:, :, None, :]
        if self.constant_CK is None:
            if settings.causal:
                seen &= key <= query
            bias = torch.where(seen, self.zero, self.never)
            if settings.shared_qk:
                bias.masked_fill_(seen & (key == query), -SELF_PENALTY)
        if self.chunk_and_code_NRL is not None:
            times = _times_seen(plan, settings, *self.chunk_and_code_NRL, query, key)
            bias.sub_(times.clamp_(min=1).to(bias.dtype).log_())
        return bias


def _times_seen(
    plan: ChunkPlan,
    settings: AttentionSettings,
    chunk_NRL: Tensor,
    code_NRL: Tensor,
    query: Tensor,
    key: Tensor,
) -> Tensor:
    """Count in how many places of all rounds the query sees the key: N_ij of the paper."""
    n, n_rounds, _ = chunk_NRL.shape
    query_NI, key_NI = query.reshape(n, -1), key.reshape(n, -1)
    shape_q, shape_k = query.shape, key.shape
    times: Tensor | None = None
    for r in range(n_rounds):
        chunk_q = chunk_NRL[:, r].gather(1, query_NI).view(shape_q)
        chunk_k = chunk_NRL[:, r].gather(1, key_NI).view(shape_k)
        code_q = code_NRL[:, r].gather(1, query_NI).view(shape_q)
        code_k = code_NRL[:, r].gather(1, key_NI).view(shape_k)
        distance = chunk_q - chunk_k
        seen = (code_q == code_k) & (distance >= 0) & (distance <= 1)
        times = seen.to(torch.int32) if times is None else times.add_(seen)
        if settings.ring and settings.attend_across_buckets:
            before = chunk_NRL[:, (r - 1) % n_rounds].gather(1, key_NI).view(shape_k)
            times.add_((chunk_q == 0) & (before == plan.n_chunks - 1))
    assert times is not None
    return times


def rounded_self_weights(
    plan: ChunkPlan, settings: AttentionSettings, alone_NL: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """Return what the value of a token that sees only itself is multiplied by, [N, L]; 1 elsewhere.

    None stands for no factor. Otherwise the factor is the sum of softmax weights over scores of
    −1e5 each, which isn't 1 because the logarithm of their number is lost in rounding: what
    transformers computes.
    """
    # In a single chunk there is nothing to combine.
    if not settings.round_lone_tokens or plan.n_rounds == 1 or plan.n_chunks == 1:
        return None
    times_NRL = torch.ones_like(plan.position_NRS[..., : plan.length], dtype=dtype)
    if settings.ring:
        chunk_NRL = plan.chunk_of_position_NRL()
        before_NRL = chunk_NRL.roll(1, dims=1)
        times_NRL.add_((chunk_NRL == 0) & (before_NRL == plan.n_chunks - 1))
    logs_NRL = times_NRL.log() - SELF_PENALTY
    # The same rounding inside a round that shows a token to itself twice, then between rounds.
    inside_NRL = times_NRL.mul_((-SELF_PENALTY - logs_NRL).exp_())
    between_NRL = (logs_NRL - logs_NRL.logsumexp(1, keepdim=True)).exp_()
    return (inside_NRL * between_NRL).sum(1).masked_fill_(~alone_NL, 1.0)
