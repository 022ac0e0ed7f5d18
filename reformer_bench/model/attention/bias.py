"""What a chunk's queries may see, as a number added to each score: 0, a penalty, or −∞.

N sequences, R rounds, L length, J chunks of a block, C chunk length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reformer_bench.model.attention.common import SELF_PENALTY, AttentionSettings
from reformer_bench.model.attention.plan import ChunkPlan


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
