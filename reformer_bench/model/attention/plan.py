"""The sorted order of each round, cut into chunks: which rows a chunk holds and may see.

N sequences, R rounds, L length, C chunk length, S = C + L rounded up to whole chunks: slots of
the sorted order with one chunk before the first, which the first chunk looks back to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

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
