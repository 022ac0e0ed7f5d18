"""Chunked attention by PyTorch's operators: one hash round and one block of chunks at a time.

Each round is added to the result as soon as it is computed; no tensor has the rounds of all tokens.

B batch, L length, G heads of one group, N = B·G sequences, S slots of a round, C chunk length, J
chunks of a block, I slots of a block, D head width, c packed features of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reformer_bench.model.attention.common import inverse_length, unit_keys_backward
from reformer_bench.model.attention.kernels.rounds import Rounds, sees_only_itself
from reformer_bench.model.attention.plan import with_previous
from reformer_bench.model.repeats import Index, repeats

# A block holds at least this many slots, so that short sequences run few, full operators, and at
# most a sixteenth of all, so that their number doesn't grow with length.
_LEAST_BLOCK_SLOTS = 4096
_MOST_BLOCKS = 16


class Block(NamedTuple):
    """The sorted rows of a block of chunks; rows begin with the chunk before the first."""

    rows_NI: Tensor
    """The row of each slot in the packed tensor."""
    q_NKCD: Tensor
    """The queries, K = J + 1 chunks of them."""
    k_NKCD: Tensor
    inverse_length_NKC1: Tensor | None
    """What queries were multiplied by to become keys, where they are shared."""
    v_JNKD: Tensor
    """The values of each chunk behind those of the chunk before it, K = 2C of them."""

    def operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [J, N, C, D], and keys and values [J, N, 2C, D]."""
        k_JNKD = with_previous(self.k_NKCD).transpose(0, 1)
        return self.q_NKCD[:, 1:].transpose(0, 1), k_JNKD, self.v_JNKD


@dataclass(frozen=True)
class BlockKernel(ABC):
    """A kernel that is given a block's sorted queries, keys, values and bias as tensors."""

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the output [J, N, C, D] and the log-normaliser [J, N, C] of one block.

        Queries are [J, N, C, D], keys and values [J, N, 2C, D], the bias is [J, N, C, 2C].
        """

    @abstractmethod
    def attend_backward(
        self,
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        out: Tensor,
        normaliser: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values, given output and log-normaliser over
        all rounds.
        """

    def forward(self, rounds: Rounds) -> tuple[Tensor, Tensor]:
        """Return the output [B, L, G, D] and the log-normaliser [N, L] over all rounds."""
        n, length, d = rounds.n_sequences, rounds.plan.length, rounds.settings.d_head
        total: Tensor | None = None
        normaliser: Tensor | None = None
        for r in range(rounds.plan.n_rounds):
            out_NSD, normaliser_NS = self._new_round(rounds, Index(r))
            slot_NL = rounds.plan.slot_of_position_NL(r)
            n_r = normaliser_NS.gather(1, slot_NL)
            flat = slot_NL + (torch.arange(n, device=slot_NL.device) * out_NSD.shape[1])[:, None]
            out_r = out_NSD.view(-1, d).index_select(0, flat.view(-1)).view(n, length, d)
            del out_NSD
            if total is None or normaliser is None:
                total, normaliser = out_r.to(rounds.wide_dtype), n_r
                continue
            # Weights that add up to one by construction; differences of normalisers stay exact
            # where a penalty has made both huge.
            share = torch.sigmoid(n_r - normaliser)[..., None]
            total.lerp_(out_r.to(rounds.wide_dtype), share)
            normaliser = torch.logaddexp(normaliser, n_r)
        assert total is not None
        assert normaliser is not None
        weights_NL = rounds.self_weights(sees_only_itself(normaliser))
        if weights_NL is not None:
            total.mul_(weights_NL[..., None])
        out = total.to(rounds.qkv_Pc.dtype).view(rounds.batch, rounds.heads, length, d)
        return out.transpose(1, 2).contiguous(), normaliser

    def _new_round(self, rounds: Rounds, r: Index) -> tuple[Tensor, Tensor]:
        """Return the output [N, S, D] and the log-normaliser [N, S] of one round, in sorted
        order.
        """
        n, n_slots = rounds.n_sequences, rounds.plan.n_chunks * rounds.plan.chunk_length
        out_NSD = rounds.qkv_Pc.new_empty(n, n_slots, rounds.settings.d_head)
        normaliser_NS = rounds.qkv_Pc.new_empty(n, n_slots, dtype=rounds.wide_dtype)
        self.round_forward(rounds, r, out_NSD, normaliser_NS)
        return out_NSD, normaliser_NS

    @repeats
    def round_forward(
        self, rounds: Rounds, r: Index, out_NSD: Tensor, normaliser_NS: Tensor
    ) -> None:
        """Write one round's output and log-normaliser, block by block."""
        for chunks in _blocks(rounds):
            self.block_forward(rounds, r, chunks, out_NSD, normaliser_NS)

    @repeats
    def block_forward(
        self, rounds: Rounds, r: Index, chunks: slice, out_NSD: Tensor, normaliser_NS: Tensor
    ) -> None:
        """Write one block's output and log-normaliser."""
        c = rounds.plan.chunk_length
        block = _gather(rounds, r, chunks)
        bias = rounds.bias.block(rounds.plan, rounds.settings, r, chunks).transpose(0, 1)
        out, normaliser = self.attend(*block.operands(), bias, rounds.settings.scale)
        slots = slice(chunks.start * c, chunks.stop * c)
        out_NSD[:, slots].unflatten(1, (-1, c)).copy_(out.transpose(0, 1))
        normaliser_NS[:, slots].unflatten(1, (-1, c)).copy_(normaliser.transpose(0, 1))

    def backward(
        self, rounds: Rounds, dout_PD: Tensor, out_PD: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Return the gradient of the packed rows, round by round; the normaliser is [N, L]."""
        dqkv_Pc = torch.zeros_like(rounds.qkv_Pc, dtype=rounds.wide_dtype)
        if rounds.settings.shared_qk:
            normaliser, share_NL = rounds.without_lone_tokens(normaliser)
            d = rounds.settings.d_head
            dqkv_Pc[:, d:].addcmul_(dout_PD, rounds.by_row(share_NL)[:, None])
            del share_NL
        for r in range(rounds.plan.n_rounds):
            self.round_backward(rounds, Index(r), dout_PD, out_PD, normaliser, dqkv_Pc)
        return dqkv_Pc.to(rounds.qkv_Pc.dtype)

    @repeats
    def round_backward(
        self,
        rounds: Rounds,
        r: Index,
        dout_PD: Tensor,
        out_PD: Tensor,
        normaliser_NL: Tensor,
        dqkv_Pc: Tensor,
    ) -> None:
        """Add one round's gradient to the packed rows, block by block."""
        for chunks in _blocks(rounds):
            last = chunks.stop == rounds.plan.n_chunks
            n_empty = rounds.plan.n_empty if last else 0
            self.block_backward(rounds, r, chunks, n_empty, dout_PD, out_PD, normaliser_NL, dqkv_Pc)

    @repeats
    def block_backward(
        self,
        rounds: Rounds,
        r: Index,
        chunks: slice,
        n_empty: int,
        dout_PD: Tensor,
        out_PD: Tensor,
        normaliser_NL: Tensor,
        dqkv_Pc: Tensor,
    ) -> None:
        """Add one block's gradient to the packed rows; the block's last ``n_empty`` slots hold no
        position.
        """
        c, d = rounds.plan.chunk_length, rounds.settings.d_head
        block = _gather(rounds, r, chunks)
        query_rows = block.rows_NI[:, c:].reshape(-1)
        to_kernel = (rounds.n_sequences, -1, c)
        dout = dout_PD.index_select(0, query_rows).view(*to_kernel, d).transpose(0, 1)
        out = out_PD.index_select(0, query_rows).view(*to_kernel, d).transpose(0, 1)
        positions = _positions(rounds, r, chunks)[:, c:]
        normaliser = normaliser_NL.gather(1, positions).view(to_kernel).transpose(0, 1)
        bias = rounds.bias.block(rounds.plan, rounds.settings, r, chunks).transpose(0, 1)
        dq, dk, dv = self.attend_backward(
            dout, *block.operands(), bias, out, normaliser, rounds.settings.scale
        )
        del dout, out, bias
        drows_NKCc = _packed_gradients(rounds, block, dq, dk, dv)
        if n_empty:
            # Slots of padding hold a copy of position 0; what they did isn't its doing.
            drows_NKCc.view(rounds.n_sequences, -1, dqkv_Pc.shape[1])[:, -n_empty:].zero_()
        dqkv_Pc.index_add_(0, block.rows_NI.view(-1), drows_NKCc.view(-1, dqkv_Pc.shape[1]))


def _blocks(rounds: Rounds) -> Iterator[slice]:
    """Yield the chunks of each block, for all sequences at once."""
    n_chunks = rounds.plan.n_chunks
    least = -(-_LEAST_BLOCK_SLOTS // (rounds.plan.chunk_length * rounds.n_sequences))
    size = max(1, least, -(-n_chunks // _MOST_BLOCKS))
    for start in range(0, n_chunks, size):
        yield slice(start, min(start + size, n_chunks))


def _positions(rounds: Rounds, r: int, chunks: slice) -> Tensor:
    """Return the positions [N, I] in a block's slots, those of the chunk before the first
    included.
    """
    c = rounds.plan.chunk_length
    return rounds.plan.position_NRS[:, r, chunks.start * c : (chunks.stop + 1) * c]


def _gather(rounds: Rounds, r: int, chunks: slice) -> Block:
    """Gather a block's sorted rows; each chunk's keys are a view of its own and the previous
    chunk.
    """
    c, d, width = rounds.plan.chunk_length, rounds.settings.d_head, rounds.qkv_Pc.shape[1]
    rows_NI = _positions(rounds, r, chunks) * rounds.heads + rounds.first_row_N1
    packed = rounds.qkv_Pc.index_select(0, rows_NI.view(-1))
    packed = packed.view(rounds.n_sequences, -1, c, width)
    q = packed[..., :d]
    v = packed[..., -d:]
    factor = inverse_length(q) if rounds.settings.shared_qk else None
    k = packed[..., d : 2 * d] if factor is None else q * factor
    return Block(rows_NI, q, k, factor, with_previous(v).transpose(0, 1))


def _packed_gradients(rounds: Rounds, block: Block, dq: Tensor, dk: Tensor, dv: Tensor) -> Tensor:
    """Return the gradients [N, J+1, C, c] of a block's packed rows, from those of queries
    [J, N, C, D] and of keys and values [J, N, 2C, D], which lie twice: as own and as previous
    chunk.
    """
    c, d = rounds.plan.chunk_length, rounds.settings.d_head
    shape = (rounds.n_sequences, dq.shape[0] + 1, c, rounds.settings.packed_width)
    drows = dq.new_empty(shape, dtype=rounds.wide_dtype)
    dq, dk, dv = dq.transpose(0, 1), dk.transpose(0, 1), dv.transpose(0, 1)
    key_slot = 0 if rounds.settings.shared_qk else 1
    for slot, g in ((key_slot, dk), (key_slot + 1, dv)):
        into = drows[..., slot * d : (slot + 1) * d]
        into[:, :-1].copy_(g[:, :, :c])
        into[:, 1:-1].add_(g[:, :-1, c:])
        into[:, -1].copy_(g[:, -1, c:])
    if block.inverse_length_NKC1 is not None:
        keys, factor = (t.to(rounds.wide_dtype) for t in (block.k_NKCD, block.inverse_length_NKC1))
        drows[..., :d] = unit_keys_backward(drows[..., :d], keys, factor)
    else:
        drows[..., :d].zero_()
    drows[:, 1:, :, :d].add_(dq)
    return drows
