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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.allocator.cpu import record_cpu_allocations

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
            _Layout.ordered((*outer, m, k), a.dtype, _order(a)),
            _Layout.ordered((*outer, k, n), a.dtype, _order(b)),
        ]
        if added is not None:
            shape = (n,) if added.dim() == 1 else (*outer, m, n)
            operands.insert(0, _Layout.ordered(shape, a.dtype, "rows"))
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
        return _Layout(sizes, x.stride(), x.dtype)

    kept = {name: stand_in(value) for name, value in kwargs.items()}
    return _held_bytes(operator, *map(stand_in, args), formula=formula, **kept)


@dataclass(frozen=True)
class _Layout:
    """What decides how an operator treats a tensor: sizes, strides and dtype."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def ordered(cls, sizes: tuple[int, ...], dtype: torch.dtype, order: str) -> _Layout:
        """Return the layout without gaps, by columns or else by rows."""
        strides = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
        if order == "columns":
            strides[-2:] = 1, sizes[-2]
        return cls(sizes, tuple(strides), dtype)

    def tensor(self) -> Tensor:
        """Return a tensor without values, which decide no size; untouched, it takes no memory."""
        reach = 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        empty = torch.empty(max(0, reach), dtype=self.dtype)
        return empty.as_strided(self.sizes, self.strides)


def _order(x: Tensor) -> str:
    """Say how the last two dimensions lie without gaps: by rows, by columns, or neither."""
    if x.is_contiguous():
        return "rows"
    # Written out: of a batch of one, is_contiguous doesn't mind the stride, PyTorch's test does.
    rows, columns = x.shape[-2:]
    by_columns = (rows * columns, 1, rows)[-x.dim() :]
    return "columns" if x.stride() == by_columns else "neither"


def _held_bytes(
    operator: Any, *args: Any, formula: Callable[..., int] | None = None, **kwargs: Any
) -> int:
    """Count the bytes that an operator holds besides its result, beyond what a formula says of it.

    Arguments are tensors, of which the layout counts, layouts, or other values that can be hashed.
    """

    def described(x: Any) -> Any:
        return _Layout(tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else x

    named = tuple((name, described(value)) for name, value in kwargs.items())
    threads = torch.get_num_threads()
    return _held_in_run(operator, formula, tuple(map(described, args)), named, threads)


@functools.cache
def _held_in_run(
    operator: Any,
    formula: Callable[..., int] | None,
    args: tuple[Any, ...],
    kwargs: tuple[tuple[str, Any], ...],
    threads: int,
) -> int:
    """Run the operator on tensors of these layouts, with that many threads."""

    def made(x: Any) -> Any:
        return x.tensor() if isinstance(x, _Layout) else x

    with _disable_current_modes(), torch.no_grad():
        given, named = list(map(made, args)), {name: made(value) for name, value in kwargs}
        held = _held_besides_result(lambda: operator(*given, **named))
        return held if formula is None else max(0, held - formula(None, *given, **named))


def _held_besides_result(run: Callable[[], Any]) -> int:
    """Measure the most that the allocator gave out while an operator ran, less its result."""
    run()  # Whatever is made once only, with the first call, is not the operator's.
    with record_cpu_allocations() as recording, recording.phase("forward"):
        result = run()
    peak = recording.timeline.peak_of_step(0)
    results = result if isinstance(result, tuple | list) else (result,)
    return (0 if peak is None else peak.allocated_bytes) - sum(map(_bytes, results))


def _bytes(x: Tensor) -> int:
    return x.numel() * x.dtype.itemsize
