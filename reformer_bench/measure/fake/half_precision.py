"""What bfloat16 and float16 products hold inside: asked of the processor at hand.

Where a processor computes in half precision itself, PyTorch hands their products to oneDNN, which
packs operands and adds up in buffers of its own. How large they are is oneDNN's choice, by shape,
instruction set and number of threads, and nothing tells it in advance: so the product itself is
run on a small stand-in, and the allocator's events say what it took. Buffers belong to tiles and
stop growing with the operands, so the stand-in of a large product is cut to a size from which on
they are largest.

Products are [B, M, K] · [B, K, N] or the same without B; queries [B, H, L, D], keys [B, H, S, D].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.fake.stand_in import Layout, State, described, held_in_run, made

HALF_DTYPES = (torch.bfloat16, torch.float16)

_MOST_MULTIPLICATIONS = 2**30
"""Products up to this size are run as they are, which takes milliseconds."""

_ROWS, _COLUMNS, _DEPTH = 1024, 1024, 4096
"""Sizes, rows for each pair of threads, from which on tiles have been found to grow no more."""

_FLASH_LENGTH = 1024
"""Queries and keys of a stand-in for attention: more than the largest tile of 256 by 512."""


def computes_natively(dtype: torch.dtype) -> bool:
    """Say whether oneDNN takes products of this dtype on this processor.

    ONEDNN_MAX_CPU_ISA=AVX2 in the environment of a new process makes any processor say no.
    """
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def product_bytes(packet: Any, a: Tensor, b: Tensor, added: Tensor | None = None) -> int:
    """Count the bytes that a product of two matrices, or of two batches of them, holds besides its
    result: oneDNN's buffers, and copies of operands that lie neither by rows nor by columns.
    """
    if a.dtype not in HALF_DTYPES or not computes_natively(a.dtype):
        return _blas_copies(a, b)
    batch, (m, k), n = (a.shape[0] if a.dim() == 3 else 0), a.shape[-2:], b.shape[-1]
    if max(1, batch) * m * k * n <= _MOST_MULTIPLICATIONS:
        return _held_bytes(packet, *(x for x in (added, a, b) if x is not None))
    copies = sum(_bytes(x) for x in (a, b) if _order(x) == "neither")

    def run(batch: int, m: int, k: int, n: int) -> int:
        outer = (batch,) if batch else ()
        operands = [
            Layout.ordered((*outer, m, k), a.dtype, _order(a)),
            Layout.ordered((*outer, k, n), a.dtype, _order(b)),
        ]
        if added is not None:
            shape = (n,) if added.dim() == 1 else (*outer, m, n)
            operands.insert(0, Layout.ordered(shape, a.dtype, "rows"))
        return _held_bytes(packet, *operands)

    return copies + _at_most(batch, m, min(k, _DEPTH), n, run)


_FEW_MULTIPLICATIONS = 400
"""Products of a batch with fewer are computed without BLAS."""


def _blas_copies(a: Tensor, b: Tensor) -> int:
    """Count the copies of operands that BLAS can't read, of a batch one product at a time
    (LinearAlgebra.cpp, addmm_impl_cpu_ and bmm_out_or_baddbmm_).
    """
    multiplications = a.shape[-2] * a.shape[-1] * b.shape[-1]
    if a.dim() == 3 and multiplications < _FEW_MULTIPLICATIONS:
        return 0
    return sum(
        x.shape[-2] * x.shape[-1] * x.dtype.itemsize for x in (a, b) if not is_read_by_blas(x)
    )


def is_read_by_blas(x: Tensor) -> bool:
    """Say whether the rows, or the columns, lie one after the other, with gaps or without."""
    (m, n), (by_row, by_column) = x.shape[-2:], x.stride()[-2:]
    return (by_column == 1 and by_row >= max(1, n)) or (by_row == 1 and by_column >= max(1, m))


def _at_most(batch: int, m: int, k: int, n: int, run: Callable[[int, int, int, int], int]) -> int:
    """Count the bytes that a large product's buffers do not exceed, from runs of smaller ones."""
    threads = torch.get_num_threads()
    batch, columns, rows = min(batch, 2 * threads), min(n, _COLUMNS), _ROWS * max(1, threads // 2)
    if m <= 2 * rows:
        return run(batch, m, k, columns)
    # A product whose threads share out the depth has sums of its whole size to add up.
    small, large = (run(batch, count, k, columns) for count in (rows, 2 * rows))
    growth = max(0, large - small) * (m / rows - 2) * (n / columns)
    return max(small, large) + math.ceil(growth)


def attention_bytes(
    formula: Callable[..., int], operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Count the bytes that a flash attention kernel holds beyond what ``formula`` says of its own
    buffers: those of the products inside it.
    """
    dtype = next(x.dtype for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    if dtype not in HALF_DTYPES or not computes_natively(dtype):
        return 0
    # Fewer heads and positions, the elements as far from each other.
    most = (2, 2 * torch.get_num_threads(), _FLASH_LENGTH, _FLASH_LENGTH)

    def stand_in(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        sizes = tuple(min(size, limit) for size, limit in zip(x.shape, most, strict=False))
        return Layout(sizes, x.stride(), x.dtype)

    named = tuple((name, stand_in(value)) for name, value in kwargs.items())
    return _held_beyond(formula, operator, tuple(map(stand_in, args)), named, State.now())


@functools.cache
def _held_beyond(
    formula: Callable[..., int],
    operator: Any,
    args: tuple[Any, ...],
    kwargs: tuple[tuple[str, Any], ...],
    state: State,
) -> int:
    """Count the bytes that an operator holds inside beyond what a formula says of it."""
    held = held_in_run(operator, args, kwargs, state, filled=False).inside_bytes
    with _disable_current_modes():
        given = [made(value, filled=False) for value in args]
        named = {name: made(value, filled=False) for name, value in kwargs}
        return max(0, held - formula(None, *given, **named))


def _held_bytes(operator: Any, *args: Any) -> int:
    """Count the bytes that an operator holds besides its result; arguments are tensors, of which
    the layout counts, or layouts.
    """
    layouts = tuple(map(described, args))
    return held_in_run(operator, layouts, (), State.now(), filled=False).inside_bytes


def _order(x: Tensor) -> str:
    """Say how the last two dimensions lie without gaps: by rows, by columns, or neither."""
    if x.is_contiguous():
        return "rows"
    # Written out: of a batch of one, is_contiguous doesn't mind the stride, PyTorch's test does.
    rows, columns = x.shape[-2:]
    by_columns = (rows * columns, 1, rows)[-x.dim() :]
    return "columns" if x.stride() == by_columns else "neither"


def _bytes(x: Tensor) -> int:
    return x.numel() * x.dtype.itemsize
