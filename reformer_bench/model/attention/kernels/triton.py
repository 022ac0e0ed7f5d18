"""The fused path of chunked attention: one Triton launch a round, no sorted copies, no scores.

P rows (batch · length · heads of the group), N sequences, R rounds, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.plan import ChunkPlan

_LEAST_TILE = 16
_FORWARD_PRODUCTS = 2
"""The products are the scores, and theirs with the values."""
_BACKWARD_PRODUCTS = 5
"""The products are the scores again, and the gradients of scores, values, queries and keys."""

# An operator that does nothing, and that torch's FLOP counter has a formula for.
_LIBRARY = torch.library.Library("reformer_bench", "DEF")
_LIBRARY.define("products(Tensor x, int flops) -> ()")
_LIBRARY.impl("products", lambda x, flops: None, "CompositeExplicitAutograd")
_products = torch.ops.reformer_bench.products


@register_flop_formula(_products)
def _flops_of_products(_x: Any, flops: int, *_: Any, **__: Any) -> int:
    return flops


def why_not_fused(settings: AttentionSettings, dtype: torch.dtype) -> str | None:
    """Name the setting that the fused programs don't cover; None when they cover all."""
    if dtype is torch.float64:
        return "dtype = 'float64'"
    for name, size in (("chunk_length", settings.chunk_length), ("d_head", settings.d_head)):
        if size < _LEAST_TILE or size & (size - 1):
            return f"{name} = {size} (a power of two, at least {_LEAST_TILE}, is needed)"
    if not settings.slots_decide:
        return "attend_across_buckets = true"
    if not settings.count_duplicates:
        return "count_duplicates = false"
    return None


class TritonKernel:
    """Is chosen like a ChunkKernel, but runs whole rounds: see fused_forward and fused_backward."""


class FusedCall(NamedTuple):
    """What a call's forward and backward programs share."""

    qkv_Pc: Tensor
    plan: ChunkPlan
    settings: AttentionSettings
    first_row_N: Tensor
    """The row of each sequence's position 0."""
    heads: int

    def rounds(self) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Yield each round with its pointers: packed rows, order, codes, first rows."""
        for r in range(self.plan.n_rounds):
            order_NS = self.plan.order_NRS[:, r].contiguous()
            code_NS = self.plan.code_NRS[:, r].contiguous()
            yield r, (self.qkv_Pc, order_NS, code_NS, self.first_row_N)

    @property
    def grid(self) -> tuple[int, int]:
        """The launch grid: a program for each chunk of each sequence."""
        return self.plan.n_chunks, self.first_row_N.shape[0]

    def constants(self) -> dict[str, Any]:
        """The constants that programs are compiled for."""
        settings = self.settings
        return {
            "C": self.plan.chunk_length,
            "D": settings.d_head,
            "CAUSAL": settings.causal,
            "SHARED": settings.shared_qk,
        }


def fused_forward(call: FusedCall) -> tuple[Tensor, Tensor]:
    """Return the output [P, D] float32 and the log-normaliser [P] float32 over all rounds."""
    n_rows, width = call.qkv_Pc.shape
    total_PD = call.qkv_Pc.new_empty(n_rows, call.settings.d_head, dtype=torch.float32)
    normaliser_P = call.qkv_Pc.new_empty(n_rows, dtype=torch.float32)
    sizes = (call.plan.order_NRS.shape[-1], call.heads, width, call.settings.scale)
    for r, pointers in call.rounds():
        _count(call, _FORWARD_PRODUCTS)
        _launch("forward_round", call, *pointers, total_PD, normaliser_P, *sizes, FIRST=r == 0)
    return total_PD, normaliser_P


def fused_backward(
    call: FusedCall, dout_PD: Tensor, out_PD: Tensor, normaliser_P: Tensor, dqkv_Pc: Tensor
) -> None:
    """Add the gradient of the packed rows to ``dqkv`` [P, c] float32, in place."""
    along_P = (dout_PD.float() * out_PD.float()).sum(-1)
    sizes = (
        call.plan.order_NRS.shape[-1],
        call.plan.n_chunks,
        call.heads,
        call.qkv_Pc.shape[1],
        call.settings.scale,
    )
    for _, pointers in call.rounds():
        _count(call, _BACKWARD_PRODUCTS)
        _launch("backward_round", call, *pointers, dout_PD, along_P, normaliser_P, dqkv_Pc, *sizes)


def _count(call: FusedCall, products: int) -> None:
    """Report the FLOPs of a launch's products to whoever counts them; no counter sees into a
    launch.

    Each chunk's C queries meet the 2 C keys of its own chunk and the one before.
    """
    n_chunks, sequences = call.grid
    c, d = call.plan.chunk_length, call.settings.d_head
    _products(call.qkv_Pc, products * 2 * sequences * n_chunks * c * 2 * c * d)


def _launch(program: str, call: FusedCall, *arguments: Any, **constants: Any) -> None:
    """Start a program for each chunk. Programs allocate nothing, so on fake tensors, which have
    no memory to read, nothing is left to do."""
    if isinstance(call.qkv_Pc, FakeTensor):
        return
    from reformer_bench.model.attention.kernels import triton_programs as triton_chunks

    getattr(triton_chunks, program)[call.grid](*arguments, **call.constants(), **constants)
