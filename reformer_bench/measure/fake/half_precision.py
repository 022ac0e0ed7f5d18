"""What bfloat16 and float16 products hold out of sight: asked of the processor at hand.

Where a processor computes in narrow types itself, PyTorch hands their products to oneDNN, which
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

from reformer_bench.measure.allocator.cpu import record_cpu_allocations

NARROW = (torch.bfloat16, torch.float16)

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
    if a.dtype not in NARROW or not computes_natively(a.dtype):
        return 0
    batch, (m, k), n = (a.shape[0] if a.dim() == 3 else 0), a.shape[-2:], b.shape[-1]
    if max(1, batch) * m * k * n <= _MOST_MULTIPLICATIONS:
        operands = [x for x in (added, a, b) if x is not None]
        return _product(packet, tuple(map(_laid, operands)), torch.get_num_threads())
    copies = sum(_bytes(x) for x in (a, b) if _layout(x) == "neither")
    by_columns = (_layout(a) == "columns", _layout(b) == "columns")

    def run(batch: int, m: int, k: int, n: int) -> int:
        outer = (batch,) if batch else ()
        operands = [
            _contiguous((*outer, m, k), a.dtype, by_columns[0]),
            _contiguous((*outer, k, n), a.dtype, by_columns[1]),
        ]
        if added is not None:
            shape = (n,) if added.dim() == 1 else (*outer, m, n)
            operands.insert(0, _contiguous(shape, a.dtype, False))
        return _product(packet, tuple(operands), torch.get_num_threads())

    return copies + _at_most(batch, m, min(k, _DEPTH), n, run)


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
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    dtype = tensors[0].dtype
    if dtype not in NARROW or not computes_natively(dtype):
        return 0
    numbers = [x for x in args if not isinstance(x, Tensor)]
    names = tuple(sorted(kwargs.items(), key=lambda item: item[0]))
    others = tuple((name, value) for name, value in names if not isinstance(value, Tensor))
    mask = kwargs.get("attn_mask")
    return _attention_buffers(
        formula,
        operator,
        tuple(_stand_in(x) for x in args if isinstance(x, Tensor)),
        None if mask is None else _stand_in(mask),
        (tuple(numbers), others),
        torch.get_num_threads(),
    )


Laid = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Sizes, strides and dtype of a tensor."""


def _layout(x: Tensor) -> str:
    """Say how the last two dimensions lie without gaps: by rows, by columns, or neither."""
    if x.is_contiguous():
        return "rows"
    # Written out: of a batch of one, is_contiguous doesn't mind the stride, PyTorch's test does.
    rows, columns = x.shape[-2:]
    by_columns = (rows * columns, 1, rows)[-x.dim() :]
    return "columns" if x.stride() == by_columns else "neither"


@functools.cache
def _product(packet: Any, operands: tuple[Laid, ...], threads: int) -> int:
    """Count the bytes besides the result, by a run with that many threads."""
    with _disable_current_modes(), torch.no_grad():
        made = [_made(x) for x in operands]
        return _held_besides_result(lambda: packet(*made))


@functools.cache
def _attention_buffers(
    formula: Callable[..., int],
    operator: Any,
    laid: tuple[Laid, ...],
    laid_mask: Laid | None,
    others: tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]],
    threads: int,
) -> int:
    """Count the bytes beyond the formula's, by a run with that many threads."""
    with _disable_current_modes(), torch.no_grad():
        args = [_made(x) for x in laid] + list(others[0])
        kwargs = dict(others[1])
        if laid_mask is not None:
            kwargs["attn_mask"] = _made(laid_mask)
        held = _held_besides_result(lambda: operator(*args, **kwargs))
        return max(0, held - formula(None, *args, **kwargs))


def _stand_in(x: Tensor) -> Laid:
    """Describe a tensor with fewer heads and positions, its elements as far from each other."""
    most = (2, 2 * torch.get_num_threads(), _FLASH_LENGTH, _FLASH_LENGTH)
    sizes = tuple(min(size, limit) for size, limit in zip(x.shape, most, strict=False))
    return sizes, x.stride(), x.dtype


def _contiguous(shape: tuple[int, ...], dtype: torch.dtype, by_columns: bool) -> Laid:
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    if by_columns:
        strides[-2:] = 1, shape[-2]
    return shape, tuple(strides), dtype


def _laid(x: Tensor) -> Laid:
    return tuple(x.shape), x.stride(), x.dtype


def _made(laid: Laid) -> Tensor:
    sizes, strides, dtype = laid
    reach = 1 + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
    # Left as it is: values decide no size, and what is never touched takes no memory.
    return torch.empty(reach, dtype=dtype).as_strided(sizes, strides)


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
