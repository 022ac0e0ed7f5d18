"""What the formulas of CPU operators have in common: copies, promotion, places for threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from reformer_bench.measure.fake.half_precision import HALF_DTYPES

InternalBytes = Callable[..., int]
"""A function of an operator's result and arguments: the most bytes that the operator holds beside
them."""

GRAIN = 32768
"""The fewest elements that one thread takes (at::internal::GRAIN_SIZE)."""

_BLOCK = 60
"""Rows and columns of the block that transposes a matrix (Copy.cpp, copy_same_type_transpose_)."""


def tensor_bytes(tensor: Tensor, dtype: torch.dtype | None = None) -> int:
    """Count the bytes of a tensor's elements, or of as many of another dtype."""
    return int(tensor.numel() * (dtype or tensor.dtype).itemsize)


def dtype_of_number(number: complex) -> torch.dtype:
    """Return the dtype of the scalar tensor that a Python number becomes."""
    if isinstance(number, bool):
        return torch.bool
    if isinstance(number, int):
        return torch.int64
    return torch.complex128 if isinstance(number, complex) else torch.float64


def wrapped_bytes(number: complex, computed: torch.dtype) -> int:
    """Count the tensor that a Python number becomes, and its copy in the dtype computed in."""
    dtype = dtype_of_number(number)
    return dtype.itemsize + (0 if dtype == computed else computed.itemsize)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels add up numbers of a dtype."""
    return torch.float32 if dtype in HALF_DTYPES else dtype


def common_dtype(operands: Sequence[Any]) -> torch.dtype:
    """Return the dtype that an element-wise operator computes in (ATen/native/TypeProperties)."""
    dtypes = {x.dtype for x in operands if isinstance(x, Tensor)}
    if len(dtypes) == 1 and not any(isinstance(x, complex) for x in operands):
        only = dtypes.pop()
        if only.is_floating_point:
            return only
    kind = ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
    return elementwise_dtypes(*operands, type_promotion_kind=kind)[1]


def converted_bytes(x: Tensor, dtype: torch.dtype) -> int:
    """Count the copy of a tensor in another dtype; nothing where it has that dtype."""
    return 0 if x.dtype == dtype else tensor_bytes(x, dtype)


def transposing_bytes(x: Tensor) -> int:
    """Count the block through which a transposed matrix is copied to a contiguous one of the same
    dtype (Copy.cpp, copy_transpose_valid).
    """
    if x.dim() != 2 or x.numel() < _BLOCK * _BLOCK:
        return 0
    if x.stride(0) != 1 or x.stride(1) != x.shape[0] or x.is_contiguous():
        return 0
    block = 2 * _BLOCK if x.dtype is torch.uint8 else _BLOCK
    return block * block * x.dtype.itemsize


def contiguous_copies(*tensors: Tensor) -> int:
    """Count the copies that kernels make of arguments that aren't contiguous
    (``expect_contiguous``), with what the making of the last of them holds.
    """
    copied = [x for x in tensors if not x.is_contiguous()]
    return most_of((tensor_bytes(x), transposing_bytes(x)) for x in copied)


def most_of(steps: Any) -> int:
    """Return the most that is alive in steps that each leave some bytes and hold more meanwhile."""
    alive = most = 0
    for left, meanwhile in steps:
        alive += left
        most = max(most, alive + meanwhile)
    return most


def copied_first(x: Tensor, result_bytes: int) -> int:
    """Count the contiguous copy of an argument that is made before the result is allocated."""
    if x.is_contiguous():
        return 0
    return tensor_bytes(x) + max(0, transposing_bytes(x) - result_bytes)


def thread_places(out: Tensor, n_elements: int, dtype: torch.dtype | None = None) -> int:
    """Count the place that a reduction of many elements to one has for each thread
    (TensorIteratorReduce.cpp, two_pass_reduction).
    """
    threads = torch.get_num_threads()
    if out.numel() != 1 or n_elements < GRAIN or threads == 1:
        return 0
    return threads * (dtype or out.dtype).itemsize


def row_bytes(x: Tensor) -> int:
    """Count one row of everything but the first dimension, in the dtype that sums are kept in."""
    return math.prod(x.shape[1:]) * wide(x.dtype).itemsize
