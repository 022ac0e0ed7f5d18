"""What CPU operators hold that reduce, accumulate, sort or choose.

Source: ReduceOps.cpp, ReduceAllOps.cpp, TensorIteratorReduce.cpp, Sorting.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.half_precision import HALF_DTYPES
from reformer_bench.measure.fake.operators_cpu_parts import (
    InternalBytes,
    contiguous_copies,
    converted_bytes,
    tensor_bytes,
    thread_places,
    transposing_bytes,
    wrapped_bytes,
)

_aten = torch.ops.aten


def _reduced(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the copy in the result's dtype, and a full reduction's place for each thread (sum,
    prod, nansum, all, any, amax, amin).
    """
    return converted_bytes(x, out.dtype) + thread_places(out, x.numel())


def _summed(out: Tensor, /, x: Tensor, dims: Any = None, *_: Any, **__: Any) -> int:
    """Count, beside what each reduction holds, the float32 copy and sums of half precision where
    the summed dimensions don't lie as one (ReduceOps.cpp, should_use_acc_buffer).
    """
    if out.dtype not in HALF_DTYPES or _lies_as_one(x, dims):
        return _reduced(out, x)
    as_float = tensor_bytes(out, torch.float32) + converted_bytes(x, torch.float32)
    return converted_bytes(x, out.dtype) + as_float + thread_places(out, x.numel(), torch.float32)


def _lies_as_one(x: Tensor, dims: Any) -> bool:
    """Say whether dimensions can be gone through with a single stride (TensorIterator.cpp,
    coalesce_dimensions).
    """
    places: Sequence[int] = range(x.dim()) if not x.dim() or not dims else dims
    sizes = sorted((x.stride(place), x.shape[place]) for place in places if x.shape[place] != 1)
    return all(size * stride == following for (stride, size), (following, _) in pairwise(sizes))


def _distance(out: Tensor, /, a: Tensor, b: Tensor, *_: Any) -> int:
    """Count the difference (Distance.cpp, dist)."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    return int(math.prod(shape) * out.dtype.itemsize)


def _accumulated(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the copy in the result's dtype (cumsum, cumprod)."""
    return 0 if x.dtype.is_complex else converted_bytes(x, out.dtype)


def _vector_norm(out: Tensor, /, x: Tensor, order: float = 2, *_: Any, **__: Any) -> int:
    """Count the copy in the result's dtype; of single elements, how many aren't zero is asked with
    a wrapped 0 (observed).
    """
    single = wrapped_bytes(0, x.dtype) if order == 0 and x.numel() == out.numel() else 0
    return max(_accumulated(out, x), single)


def _mean(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    return mean_bytes(out, x.numel(), x.dtype)


def mean_bytes(out: Tensor, n_elements: int, dtype: torch.dtype) -> int:
    """Count, for a mean of so many elements, a sum that is divided in place by a wrapped number; of
    half precision, a sum in float32 of a copy in float32 (ReduceOps.cpp, mean_out).
    """
    half = out.dtype in HALF_DTYPES
    summed = torch.float32 if half else out.dtype
    copy = 0 if dtype == summed else n_elements * summed.itemsize
    summing = copy + thread_places(out, n_elements, summed)
    own = tensor_bytes(out, summed) if half else 0
    return own + max(summing, wrapped_bytes(1, summed))


def sum_bytes(out: Tensor, n_elements: int) -> int:
    """Count what the sum of so many elements of the result's dtype, which lie in a row, holds."""
    return thread_places(out, n_elements)


def _spread(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the mean that a variance of all elements to one begins with; variances of several have
    none (ReduceOps.cpp, std_var_all_cpu).
    """
    if out.numel() != 1 or x.dtype in HALF_DTYPES or x.dtype.is_complex or not x.numel():
        return 0
    return tensor_bytes(out) + max(thread_places(out, x.numel()), wrapped_bytes(1, out.dtype))


def _logsumexp(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the maxima, and either their magnitudes and which are infinite, or exp(x − max) of the
    whole input; integers are converted first (ReduceOps.cpp, logsumexp_out_impl).
    """
    copy = converted_bytes(x, out.dtype)
    infinite = out.numel() + wrapped_bytes(1.0, out.dtype)
    exponentials = tensor_bytes(x, out.dtype) + thread_places(out, x.numel())
    return copy + tensor_bytes(out) + max(exponentials, infinite)


def _count_nonzero(out: Tensor, /, x: Tensor, dim: Any = None) -> int:
    """Count which are not zero, and these as int64 to be summed; with no dimension given each
    thread counts by itself (SummaryOps in ReduceAllOps.cpp, count_nonzero).
    """
    if dim is None or dim == []:
        return 0
    if x.dtype is torch.bool:
        return 8 * x.numel() + thread_places(out, x.numel())
    comparing = x.numel() + wrapped_bytes(0, x.dtype) - tensor_bytes(out)
    return max(comparing, 9 * x.numel() + thread_places(out, x.numel()))


def _index_of_extreme(out: Tensor, /, x: Tensor, dim: int | None = None, *_: Any) -> int:
    """Count the copy of all elements in a row (ReduceOps.cpp, argmax_argmin_impl)."""
    return contiguous_copies(x) if dim is None else 0


def _sort(out: Any, /, x: Tensor, *_: Any, dim: int = -1, **__: Any) -> int:
    """Count the positions 0, 1, … along the sorted dimension, copied to every row (Sorting.cpp)."""
    place = next((value for value in _ if type(value) is int), dim)
    return x.shape[place] * 8 if x.dim() else 0


def _kth_value(out: Any, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count a copy of the values and one of positions (Sorting.cpp, kthvalue_out_impl_cpu)."""
    if x.dim() == 0:
        return 0
    return tensor_bytes(x) + max(transposing_bytes(x), 8 * x.numel())


def _median(out: Any, /, x: Tensor, dim: int | None = None, *_: Any, **__: Any) -> int:
    """Count the copy that is partly sorted, of all elements or of rows that don't lie in a row
    (Sorting.cpp, median_impl, median_with_indices_impl).
    """
    if dim is None:
        return tensor_bytes(x)
    if x.dim() == 0:
        return 0
    return contiguous_copies(x.transpose(dim, -1))


FORMULAS: dict[Any, InternalBytes] = {
    **dict.fromkeys(
        (_aten.prod, _aten.nansum, _aten.all, _aten.any, _aten.amax, _aten.amin),
        _reduced,
    ),
    **dict.fromkeys((_aten.cumsum, _aten.cumsum_, _aten.cumprod, _aten.cumprod_), _accumulated),
    _aten.linalg_vector_norm: _vector_norm,
    _aten.sum: _summed,
    _aten.dist: _distance,
    _aten.mean: _mean,
    _aten.std: _spread,
    _aten.var: _spread,
    _aten.logsumexp: _logsumexp,
    _aten.count_nonzero: _count_nonzero,
    _aten.argmax: _index_of_extreme,
    _aten.argmin: _index_of_extreme,
    _aten.sort: _sort,
    _aten.kthvalue: _kth_value,
    _aten.median: _median,
    _aten.nanmedian: _median,
}
