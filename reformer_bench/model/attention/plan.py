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
_PADDING = -1
_NOTHING = -2
_EMPTY = -3


@dataclass(frozen=True)
class ChunkPlan:
    """The plan of a forward pass and its backward pass; it holds integers only."""

    order_NRS: Tensor
    """The position that sits in each slot, int64; slots of padding hold position 0."""
    code_NRS: Tensor
    """What decides who sees whom, int32: a query sees only keys of its own code. It is the bucket,
    or one code for all; padding tokens and empty slots have negative codes, each its own, because
    an empty slot holds a copy of position 0, whose gradient must not reach padding."""
    chunk_length: int
    length: int

    @property
    def n_rounds(self) -> int:
        """The number of hash rounds."""
        return self.order_NRS.shape[1]

    @property
    def n_chunks(self) -> int:
        """The number of chunks in a round."""
        return self.order_NRS.shape[2] // self.chunk_length - 1

    @property
    def n_empty(self) -> int:
        """The number of slots at the end of a round that hold no position."""
        return self.n_chunks * self.chunk_length - self.length

    def _by_position(self, values_NRS: Tensor) -> Tensor:
        """Put values of slots, [N, R, L], at the positions that sit in them."""
        own = slice(self.chunk_length, self.chunk_length + self.length)
        order = self.order_NRS[..., own]
        return torch.empty_like(values_NRS[..., own]).scatter_(-1, order, values_NRS[..., own])

    def slot_of_position_NL(self, r: int) -> Tensor:
        """Return where each position sits in a round's sorted order, int64, without counting the
        chunk before the first.
        """
        own = slice(self.chunk_length, self.chunk_length + self.length)
        order = self.order_NRS[:, r, own]
        slots = torch.arange(self.length, device=order.device).expand_as(order)
        return torch.empty_like(order).scatter_(-1, order, slots)

    def chunk_of_position_NRL(self) -> Tensor:
        """Return the chunk of each position in each round, int64."""
        slots = torch.arange(self.order_NRS.shape[-1], device=self.order_NRS.device)
        chunks = (slots // self.chunk_length - 1).expand_as(self.order_NRS)
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
    sorted_buckets, order = buckets_NRL.sort(dim=-1, stable=True)
    code = torch.zeros_like(sorted_buckets) if across_buckets else sorted_buckets
    if valid_NL is not None:
        real = valid_NL[:, None, :].expand(n, n_rounds, length).gather(-1, order)
        code = torch.where(real, code, _PADDING)
    n_empty = -length % chunk_length
    order = pad(order, (chunk_length, n_empty))
    code = pad(pad(code, (0, n_empty), value=_EMPTY), (chunk_length, 0), value=_NOTHING)
    if ring:
        order[..., :chunk_length] = order[..., -chunk_length:].roll(1, dims=1)
        code[..., :chunk_length] = code[..., -chunk_length:].roll(1, dims=1)
        if not across_buckets:
            # Another round's buckets are other sets, whatever their numbers.
            code[..., :chunk_length] = _NOTHING
    return ChunkPlan(order, code.to(torch.int32), chunk_length, length)


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
    code[:, 0, chunk_length : chunk_length + length].masked_fill_(~valid_NL, _PADDING)
    if ring:
        code[..., :chunk_length] = code[..., -chunk_length:]
    return ChunkPlan(plan.order_NRS, code, chunk_length, length)


def with_previous(rows_NKC: Tensor) -> Tensor:
    """Return each chunk behind the one before it, a view [N, J, 2C, …] of chunks [N, J+1, C, …]."""
    n, k, c = rows_NKC.shape[:3]
    strides = rows_NKC.stride()
    return rows_NKC.as_strided((n, k - 1, 2 * c, *rows_NKC.shape[3:]), strides)


class BiasMaker:
    """Makes the biases of one attention call, a block of chunks at a time."""

    def __init__(self, plan: ChunkPlan, settings: AttentionSettings, dtype: torch.dtype) -> None:
        """Where slots decide what is seen, one constant serves every chunk."""
        self._plan, self._settings = plan, settings
        c, device = plan.chunk_length, plan.order_NRS.device
        self._zero = torch.zeros((), dtype=dtype, device=device)
        self._never = torch.full((), -math.inf, dtype=dtype, device=device)
        self._constant_CK: Tensor | None = None
        if settings.slots_decide:
            self._constant_CK = torch.zeros(c, 2 * c, dtype=dtype, device=device)
            if settings.causal:
                later = torch.ones(c, 2 * c, dtype=torch.bool, device=device).triu_(c + 1)
                self._constant_CK.masked_fill_(later, -math.inf)
            if settings.shared_qk:
                self._constant_CK.diagonal(c).fill_(-SELF_PENALTY)
        self.alike = (dtype, plan.chunk_length)
        """What decides the shapes a block of bias is made with, besides plan and settings."""
        self._places: tuple[Tensor, Tensor] | None = None
        if not settings.count_duplicates and plan.n_rounds > 1:
            self._places = (plan.chunk_of_position_NRL(), plan.code_of_position_NRL())

    def block(self, r: int, chunks: slice) -> Tensor:
        """Return the bias [N, J, C, 2C] of a round's chunks."""
        plan, c = self._plan, self._plan.chunk_length
        slots = slice(chunks.start * c, (chunks.stop + 1) * c)
        code_NKC = plan.code_NRS[:, r, slots].unflatten(-1, (-1, c)).contiguous()
        seen = code_NKC[:, 1:, :, None] == with_previous(code_NKC)[:, :, None, :]
        if self._constant_CK is not None:
            bias = torch.where(seen, self._constant_CK, self._never)
            if self._places is None:
                return bias
        order_NKC = plan.order_NRS[:, r, slots].unflatten(-1, (-1, c)).contiguous()
        query, key = order_NKC[:, 1:, :, None], with_previous(order_NKC)[:, :, None, :]
        if self._constant_CK is None:
            if self._settings.causal:
                seen &= key <= query
            bias = torch.where(seen, self._zero, self._never)
            if self._settings.shared_qk:
                bias.masked_fill_(seen & (key == query), -SELF_PENALTY)
        if self._places is not None:
            bias.sub_(self._times_seen(query, key).clamp_(min=1).to(bias.dtype).log_())
        return bias

    def _times_seen(self, query: Tensor, key: Tensor) -> Tensor:
        """Count in how many places of all rounds the query sees the key: N_ij of the paper."""
        assert self._places is not None
        chunk_NRL, code_NRL = self._places
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
            if self._settings.ring and self._settings.attend_across_buckets:
                before = chunk_NRL[:, (r - 1) % n_rounds].gather(1, key_NI).view(shape_k)
                times.add_((chunk_q == 0) & (before == self._plan.n_chunks - 1))
        assert times is not None
        return times


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
