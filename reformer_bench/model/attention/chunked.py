"""Attention over a chunk plan, one hash round and one block of chunks at a time.

Each round is added to the result as soon as it is computed; no tensor has the rounds of all tokens.
What ties the rounds together is the log-normaliser: the logarithm of a token's softmax denominator,
summed over the keys that it sees in all rounds.

B batch, L length, G heads of one group, N = B·G sequences, R rounds, C chunk length, J chunks of a
block, D head width. Packed rows hold a head's query and value (shared QK) or query, key, value.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reformer_bench.model.attention.common import (
    SELF_PENALTY,
    AttentionSettings,
    inverse_length,
    unit_keys_backward,
)
from reformer_bench.model.attention.kernels.eager import ChunkKernel
from reformer_bench.model.attention.kernels.triton import (
    FusedCall,
    TritonKernel,
    fused_backward,
    fused_forward,
)
from reformer_bench.model.attention.plan import BiasMaker, ChunkPlan, lone_weights, with_previous
from reformer_bench.model.repeats import repeat

# A block holds at least this many slots, so that short sequences run few, full operators, and at
# most a sixteenth of all, so that their number doesn't grow with length.
_LEAST_BLOCK_SLOTS = 4096
_MOST_BLOCKS = 16


class _Block(NamedTuple):
    """The sorted rows of a block, as a kernel takes them."""

    rows_NI: Tensor
    """The row of each slot in the packed tensor, those of the chunk before the first included."""
    q_NKCD: Tensor
    """The queries of all its chunks, those of the chunk before the first included."""
    k_NKCD: Tensor
    inverse_length_NKC1: Tensor | None
    """What queries were multiplied by to become keys, where they are shared."""
    v_JNKD: Tensor

    def operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [J, N, C, D], and keys and values [J, N, 2C, D]."""
        k_JNKD = with_previous(self.k_NKCD).transpose(0, 1)
        return self.q_NKCD[:, 1:].transpose(0, 1), k_JNKD, self.v_JNKD


class _ChunkedAttention(torch.autograd.Function):
    """Keeps the packed input, the output with its log-normaliser, and the integers of the plan."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_BLGc: Tensor,
        plan: ChunkPlan,
        bias: BiasMaker,
        settings: AttentionSettings,
        kernel: ChunkKernel | TritonKernel,
    ) -> Tensor:
        batch, _, heads, width = qkv_BLGc.shape
        call = _Call(qkv_BLGc.reshape(-1, width), plan, bias, settings, kernel, batch, heads)
        out_BLGD, normaliser_NL = call.forward()
        ctx.call = (plan, bias, settings, kernel)
        ctx.save_for_backward(qkv_BLGc, out_BLGD, normaliser_NL)
        return out_BLGD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BLGc, out_BLGD, normaliser_NL = ctx.saved_tensors
        batch, _, heads, width = qkv_BLGc.shape
        plan, bias, settings, kernel = ctx.call
        call = _Call(qkv_BLGc.reshape(-1, width), plan, bias, settings, kernel, batch, heads)
        dqkv = call.backward(grads[0], out_BLGD, normaliser_NL)
        return dqkv.view_as(qkv_BLGc), None, None, None, None


class _Call:
    """One call of attention: what its forward and its backward pass share."""

    def __init__(
        self,
        qkv_Pc: Tensor,
        plan: ChunkPlan,
        bias: BiasMaker,
        settings: AttentionSettings,
        kernel: ChunkKernel | TritonKernel,
        batch: int,
        heads: int,
    ) -> None:
        self.qkv_Pc, self.plan, self.bias = qkv_Pc, plan, bias
        self.settings, self.kernel = settings, kernel
        self.batch, self.heads, self.n = batch, heads, batch * heads
        b = torch.arange(batch, device=qkv_Pc.device).repeat_interleave(heads)
        g = torch.arange(heads, device=qkv_Pc.device).repeat(batch)
        # Row of (b, position, g) is (b · L + position) · G + g.
        self._first_row_N1 = (b * plan.length * heads + g)[:, None]
        wide = qkv_Pc.dtype == torch.float64
        self.wide_dtype = torch.float64 if wide else torch.float32
        # All that decides the shapes a block works with, besides its size.
        self._alike = (
            (qkv_Pc.shape, qkv_Pc.stride(), qkv_Pc.dtype, batch, heads),
            (plan.order_NRS.shape, plan.length, bias.alike, settings, type(kernel)),
        )

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the output [B, L, G, D] and the log-normaliser [N, L] over all rounds."""
        if isinstance(self.kernel, TritonKernel):
            return self._fused_forward()
        n, length, d = self.n, self.plan.length, self.settings.d_head
        total: Tensor | None = None
        normaliser: Tensor | None = None
        for r in range(self.plan.n_rounds):
            out_NSD, normaliser_NS = self._round(r)
            slot_NL = self.plan.slot_of_position_NL(r)
            n_r = normaliser_NS.gather(1, slot_NL)
            flat = slot_NL + (torch.arange(n, device=slot_NL.device) * out_NSD.shape[1])[:, None]
            out_r = out_NSD.view(-1, d).index_select(0, flat.view(-1)).view(n, length, d)
            del out_NSD
            if total is None or normaliser is None:
                total, normaliser = out_r.to(self.wide_dtype), n_r
                continue
            # Weights that add up to one by construction; differences of normalisers stay exact
            # where a penalty has made both huge.
            share = torch.sigmoid(n_r - normaliser)[..., None]
            total.lerp_(out_r.to(self.wide_dtype), share)
            normaliser = torch.logaddexp(normaliser, n_r)
        assert total is not None
        assert normaliser is not None
        weights_NL = self._lone_weights(normaliser < -SELF_PENALTY / 2)
        if weights_NL is not None:
            total.mul_(weights_NL[..., None])
        out = total.to(self.qkv_Pc.dtype).view(self.batch, self.heads, length, d)
        return out.transpose(1, 2).contiguous(), normaliser

    def _fused_forward(self) -> tuple[Tensor, Tensor]:
        """Do the same by the fused programs, which write rows where they belong."""
        total_PD, normaliser_P = fused_forward(self._fused())
        shape = (self.batch, self.plan.length, self.heads)
        normaliser_NL = normaliser_P.view(shape).transpose(1, 2).reshape(self.n, -1)
        weights_NL = self._lone_weights(normaliser_NL < -SELF_PENALTY / 2)
        if weights_NL is not None:
            total_PD.mul_(self._by_row(weights_NL)[:, None])
        out_BLGD = total_PD.to(self.qkv_Pc.dtype).view(*shape, self.settings.d_head)
        return out_BLGD, normaliser_NL

    def _fused(self) -> FusedCall:
        first_row_N = self._first_row_N1[:, 0].contiguous()
        return FusedCall(self.qkv_Pc, self.plan, self.settings, first_row_N, self.heads)

    def _by_row(self, values_NL: Tensor) -> Tensor:
        """Put values of sequences in the order of packed rows, [P]."""
        return values_NL.view(self.batch, self.heads, -1).transpose(1, 2).reshape(-1)

    def _lone_weights(self, alone_NL: Tensor) -> Tensor | None:
        return lone_weights(self.plan, self.settings, alone_NL, self.wide_dtype)

    def _round(self, r: int) -> tuple[Tensor, Tensor]:
        """Return the output [N, S, D] and the log-normaliser [N, S] of one round, in
        sorted order.
        """
        c, d = self.plan.chunk_length, self.settings.d_head
        n_slots = self.plan.n_chunks * c
        out_NSD = self.qkv_Pc.new_empty(self.n, n_slots, d)
        normaliser_NS = self.qkv_Pc.new_empty(self.n, n_slots, dtype=self.wide_dtype)
        repeat(("round", self._alike), self._fill, r, out_NSD, normaliser_NS)
        return out_NSD, normaliser_NS

    def _fill(self, r: int, out_NSD: Tensor, normaliser_NS: Tensor) -> None:
        """Write a round, block by block."""
        for chunks in self._blocks():
            key = ("block", self._alike, chunks.stop - chunks.start)
            repeat(key, self._block_forward, r, chunks, out_NSD, normaliser_NS)

    def _block_forward(self, r: int, chunks: slice, out_NSD: Tensor, normaliser_NS: Tensor) -> None:
        """Write one block's output and log-normaliser."""
        c = self.plan.chunk_length
        block = self._gather(r, chunks)
        bias = self.bias.block(r, chunks).transpose(0, 1)
        assert not isinstance(self.kernel, TritonKernel)
        out, normaliser = self.kernel.forward(*block.operands(), bias, self.settings.scale)
        slots = slice(chunks.start * c, chunks.stop * c)
        out_NSD[:, slots].unflatten(1, (-1, c)).copy_(out.transpose(0, 1))
        normaliser_NS[:, slots].unflatten(1, (-1, c)).copy_(normaliser.transpose(0, 1))

    def backward(self, dout_BLGD: Tensor, out_BLGD: Tensor, normaliser_NL: Tensor) -> Tensor:
        """Return the gradient [P, c] of the packed rows."""
        d = self.settings.d_head
        dout_PD, out_PD = dout_BLGD.reshape(-1, d), out_BLGD.reshape(-1, d)
        dqkv_Pc = torch.zeros_like(self.qkv_Pc, dtype=self.wide_dtype)
        if self.settings.shared_qk:
            # A token with no target but itself: its output is its value, exactly, whatever the
            # rounding of a normaliser near the penalty.
            alone_NL = normaliser_NL < -SELF_PENALTY / 2
            normaliser_NL = normaliser_NL.masked_fill(alone_NL, torch.inf)
            share_NL = alone_NL.to(self.wide_dtype)
            weights_NL = self._lone_weights(alone_NL)
            if weights_NL is not None:
                share_NL.mul_(weights_NL)
            dqkv_Pc[:, d:].addcmul_(dout_PD, self._by_row(share_NL)[:, None])
        if isinstance(self.kernel, TritonKernel):
            normaliser_P = self._by_row(normaliser_NL)
            fused_backward(self._fused(), dout_PD, out_PD, normaliser_P, dqkv_Pc)
            return dqkv_Pc.to(self.qkv_Pc.dtype)
        alike = (self._alike, dout_PD.stride(), out_PD.stride())
        tensors = (dout_PD, out_PD, normaliser_NL, dqkv_Pc)
        for r in range(self.plan.n_rounds):
            repeat(("round backward", alike), self._round_backward, alike, r, *tensors)
        return dqkv_Pc.to(self.qkv_Pc.dtype)

    def _round_backward(self, alike: Hashable, r: int, *tensors: Tensor) -> None:
        """Add one round's gradient to the packed rows, block by block."""
        for chunks in self._blocks():
            last = chunks.stop == self.plan.n_chunks
            key = ("block backward", alike, chunks.stop - chunks.start, last)
            repeat(key, self._block_backward, r, chunks, *tensors)

    def _block_backward(
        self,
        r: int,
        chunks: slice,
        dout_PD: Tensor,
        out_PD: Tensor,
        normaliser_NL: Tensor,
        dqkv_Pc: Tensor,
    ) -> None:
        """Add one block's gradient to the packed rows, in place."""
        c, d, n = self.plan.chunk_length, self.settings.d_head, self.n
        block = self._gather(r, chunks)
        query_rows = block.rows_NI[:, c:].reshape(-1)
        to_kernel = (n, -1, c)
        dout = dout_PD.index_select(0, query_rows).view(*to_kernel, d).transpose(0, 1)
        out = out_PD.index_select(0, query_rows).view(*to_kernel, d).transpose(0, 1)
        positions = self._positions(r, chunks)[:, c:]
        normaliser = normaliser_NL.gather(1, positions).view(to_kernel).transpose(0, 1)
        bias = self.bias.block(r, chunks).transpose(0, 1)
        assert not isinstance(self.kernel, TritonKernel)
        dq, dk, dv = self.kernel.backward(
            dout, *block.operands(), bias, out, normaliser, self.settings.scale
        )
        del dout, out, bias
        drows_NKCc = self._fold(dq, dk, dv, block, last=chunks.stop == self.plan.n_chunks)
        dqkv_Pc.index_add_(0, block.rows_NI.view(-1), drows_NKCc.view(-1, dqkv_Pc.shape[1]))

    def _fold(self, dq: Tensor, dk: Tensor, dv: Tensor, block: _Block, *, last: bool) -> Tensor:
        """Gradients [N, J+1, C, c] of the block's packed rows, from those of queries [J, N, C, D]
        and of keys and values [J, N, 2C, D], which lie twice: as own and as previous chunk."""
        c, d = self.plan.chunk_length, self.settings.d_head
        n_chunks = dq.shape[0]
        width = self.settings.packed_width
        drows = dq.new_empty(self.n, n_chunks + 1, c, width, dtype=self.wide_dtype)
        dq, dk, dv = dq.transpose(0, 1), dk.transpose(0, 1), dv.transpose(0, 1)
        key_slot = 0 if self.settings.shared_qk else 1
        for slot, g in ((key_slot, dk), (key_slot + 1, dv)):
            into = drows[..., slot * d : (slot + 1) * d]
            into[:, :-1].copy_(g[:, :, :c])
            into[:, 1:-1].add_(g[:, :-1, c:])
            into[:, -1].copy_(g[:, -1, c:])
        if block.inverse_length_NKC1 is not None:
            keys, factor = (
                t.to(self.wide_dtype) for t in (block.k_NKCD, block.inverse_length_NKC1)
            )
            drows[..., :d] = unit_keys_backward(drows[..., :d], keys, factor)
        else:
            drows[..., :d].zero_()
        drows[:, 1:, :, :d].add_(dq)
        if last and self.plan.n_empty:
            # Slots of padding hold a copy of position 0; what they did isn't its doing.
            drows.view(self.n, -1, width)[:, -self.plan.n_empty :].zero_()
        return drows

    def _blocks(self) -> Iterator[slice]:
        """Return the chunks of each block, for all sequences at once."""
        c, n_chunks = self.plan.chunk_length, self.plan.n_chunks
        least = -(-_LEAST_BLOCK_SLOTS // (c * self.n))
        size = max(1, least, -(-n_chunks // _MOST_BLOCKS))
        for start in range(0, n_chunks, size):
            yield slice(start, min(start + size, n_chunks))

    def _positions(self, r: int, chunks: slice) -> Tensor:
        """Return the positions [N, I] in the block's slots, those of the chunk before the first
        included.
        """
        c = self.plan.chunk_length
        return self.plan.order_NRS[:, r, chunks.start * c : (chunks.stop + 1) * c]

    def _gather(self, r: int, chunks: slice) -> _Block:
        """Gather the block's sorted rows; each chunk's keys are a view of its own and the previous
        chunk.
        """
        c, d, n = self.plan.chunk_length, self.settings.d_head, self.n
        rows_NI = self._positions(r, chunks) * self.heads + self._first_row_N1
        packed = self.qkv_Pc.index_select(0, rows_NI.view(-1)).view(n, -1, c, self.qkv_Pc.shape[1])
        q = packed[..., :d]
        v = packed[..., -d:]
        factor = inverse_length(q) if self.settings.shared_qk else None
        k = packed[..., d : 2 * d] if factor is None else q * factor
        return _Block(rows_NI, q, k, factor, with_previous(v).transpose(0, 1))


def chunked_attention(
    qkv_BLGc: Tensor,
    plan: ChunkPlan,
    settings: AttentionSettings,
    kernel: ChunkKernel | TritonKernel,
) -> Tensor:
    """Return the output [B, L, G, D] of packed rows over a plan for B·G sequences,
    differentiably.
    """
    dtype = torch.float64 if qkv_BLGc.dtype == torch.float64 else torch.float32
    bias = BiasMaker(plan, settings, dtype)
    return _ChunkedAttention.apply(qkv_BLGc, plan, bias, settings, kernel)
