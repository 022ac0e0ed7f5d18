"""The kernel of fused Triton programs: one launch a round, no sorted copies, no scores.

B batch, L length, G heads of one group, N = B·G sequences, P = B·L·G rows, D head width.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from reformer_bench.model.attention.common import (
    KEY_EPSILON,
    SELF_PENALTY,
    AttentionSettings,
)
from reformer_bench.model.attention.kernels.rounds import Rounds, sees_only_itself
from reformer_bench.model.attention.plan import EMPTY_SLOT

_LEAST_TILE = 16
_LEAST_CAPABILITY = 8
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


@functools.cache
def why_not_here(device: torch.device) -> str | None:
    """Say why Triton's programs can't run on a CUDA device of this machine; None where they can.

    Triton compiles a launcher for each program with the machine's C compiler, and its tensor-core
    products for bfloat16 begin with compute capability 8.0.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton isn't installed"
    named = os.environ.get("CC", "").split()[:1]
    if not any(map(shutil.which, named or ("gcc", "clang", "cc"))):
        return f"no C compiler ({named[0]} of CC)" if named else "no C compiler"
    major, minor = torch.cuda.get_device_capability(device)
    if major < _LEAST_CAPABILITY:
        return f"compute capability {major}.{minor} is below {_LEAST_CAPABILITY}.0"
    return None


@dataclass(frozen=True)
class TritonKernel:
    """A kernel that is a program for each chunk of each sequence, launched once a round.

    Programs write rows where they belong, so that no sorted copy and no score is ever in memory.
    """

    def forward(self, rounds: Rounds) -> tuple[Tensor, Tensor]:
        """Return the output [B, L, G, D] and the log-normaliser [N, L] over all rounds."""
        total_PD, normaliser_P = _forward_rounds(rounds)
        shape = (rounds.batch, rounds.plan.length, rounds.heads)
        normaliser_NL = normaliser_P.view(shape).transpose(1, 2).reshape(rounds.n_sequences, -1)
        weights_NL = rounds.self_weights(sees_only_itself(normaliser_NL))
        if weights_NL is not None:
            total_PD.mul_(rounds.by_row(weights_NL)[:, None])
        out_BLGD = total_PD.to(rounds.qkv_Pc.dtype).view(*shape, rounds.settings.d_head)
        return out_BLGD, normaliser_NL

    def backward(
        self,
        rounds: Rounds,
        dout_PD: Tensor,
        out_PD: Tensor,
        normaliser_NL: Tensor,
        dqkv_Pc: Tensor,
    ) -> None:
        """Add the gradient of the packed rows to ``dqkv`` [P, c] float32, round by round."""
        # Programs count on rows without gaps, and a gradient may be one number expanded.
        dout_PD, out_PD = dout_PD.contiguous(), out_PD.contiguous()
        normaliser_P = rounds.by_row(normaliser_NL)
        _backward_rounds(rounds, dout_PD, out_PD, normaliser_P, dqkv_Pc)


def _forward_rounds(rounds: Rounds) -> tuple[Tensor, Tensor]:
    """Return the output [P, D] float32 and the log-normaliser [P] float32 over all rounds."""
    n_rows, width = rounds.qkv_Pc.shape
    total_PD = rounds.qkv_Pc.new_empty(n_rows, rounds.settings.d_head, dtype=torch.float32)
    normaliser_P = rounds.qkv_Pc.new_empty(n_rows, dtype=torch.float32)
    sizes = (rounds.plan.position_NRS.shape[-1], rounds.heads, width, rounds.settings.scale)
    for r, pointers in _pointers(rounds):
        _count(rounds, _FORWARD_PRODUCTS)
        _launch("forward_round", rounds, *pointers, total_PD, normaliser_P, *sizes, FIRST=r == 0)
    return total_PD, normaliser_P


def _backward_rounds(
    rounds: Rounds, dout_PD: Tensor, out_PD: Tensor, normaliser_P: Tensor, dqkv_Pc: Tensor
) -> None:
    along_P = (dout_PD.float() * out_PD.float()).sum(-1)
    sizes = (
        rounds.plan.position_NRS.shape[-1],
        rounds.plan.n_chunks,
        rounds.heads,
        rounds.qkv_Pc.shape[1],
        rounds.settings.scale,
    )
    tensors = (dout_PD, along_P, normaliser_P, dqkv_Pc)
    for _, pointers in _pointers(rounds):
        _count(rounds, _BACKWARD_PRODUCTS)
        _launch("backward_round", rounds, *pointers, *tensors, *sizes)


def _pointers(rounds: Rounds) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield each round with its pointers: packed rows, positions, codes, first rows."""
    first_row_N = rounds.first_row_N1[:, 0].contiguous()
    for r in range(rounds.plan.n_rounds):
        position_NS = rounds.plan.position_NRS[:, r].contiguous()
        code_NS = rounds.plan.code_NRS[:, r].contiguous()
        yield r, (rounds.qkv_Pc, position_NS, code_NS, first_row_N)


def _count(rounds: Rounds, products: int) -> None:
    """Report the FLOPs of a launch's products to whoever counts them; no counter sees into a
    launch.

    Each chunk's C queries meet the 2 C keys of its own chunk and the one before.
    """
    c, d = rounds.plan.chunk_length, rounds.settings.d_head
    n_programs = rounds.n_sequences * rounds.plan.n_chunks
    _products(rounds.qkv_Pc, products * 2 * n_programs * c * 2 * c * d)


def _launch(program: str, rounds: Rounds, *arguments: Any, **constants: Any) -> None:
    """Start a program for each chunk. Programs allocate nothing, so on fake tensors, which have
    no memory to read, nothing is left to do.
    """
    if isinstance(rounds.qkv_Pc, FakeTensor):
        return
    from reformer_bench.model.attention.kernels import triton_programs

    getattr(triton_programs, program)[rounds.plan.n_chunks, rounds.n_sequences](
        *arguments,
        C=rounds.plan.chunk_length,
        D=rounds.settings.d_head,
        CAUSAL=rounds.settings.causal,
        SHARED=rounds.settings.shared_qk,
        SELF_PENALTY=SELF_PENALTY,
        KEY_EPSILON=KEY_EPSILON,
        EMPTY_SLOT=EMPTY_SLOT,
        **constants,
    )
