"""What CPU operators hold that copy, join, move, pick or put elements.

Source: Copy.cpp, TensorShape.cpp, TensorTransformations.cpp, TriangularOps.cpp, Repeat.cpp,
TensorAdvancedIndexing.cpp, IndexingUtils.h, ScatterGatherKernel.cpp, Bucketization.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.half_precision import HALF_DTYPES
from reformer_bench.measure.fake.operators_cpu_parts import (
    GRAIN,
    InternalBytes,
    contiguous_copies,
    converted_bytes,
    copied_first,
    row_bytes,
    tensor_bytes,
    transposing_bytes,
    wrapped_bytes,
)

_aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)


def _clone(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the block through which a transposed matrix is copied to rows."""
    same = out.is_contiguous() and out.dtype == x.dtype
    return transposing_bytes(x) if same else 0


def _copy(out: Tensor, /, into: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the block through which a transposed matrix is copied to rows."""
    return _clone(into, x) if into.shape == x.shape else 0


def _joined(out: Tensor, /, tensors: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """Count a part of the result in the dtype of an operand, where that differs: operands are
    copied one after the other (TensorShape.cpp, cat_out_cpu).
    """
    return max((tensor_bytes(x) for x in tensors if x.dtype != out.dtype), default=0)


def _repeated(out: Tensor, /, x: Tensor, repeats: Sequence[int]) -> int:
    """Count what unfolding an alias of the result holds: 32 bytes for each dimension."""
    if 0 in repeats:
        return 0
    return 32 * len(repeats) if repeats else 8


def _repeat_interleave(out: Tensor, /, repeats: Tensor, **_: Any) -> int:
    """Count the sums of the repeats so far (Repeat.cpp, repeat_interleave_common)."""
    copy = 0 if repeats.is_contiguous() else tensor_bytes(repeats)
    return copy + 8 * repeats.numel()


def _roll(out: Tensor, /, x: Tensor, shifts: Any, dims: Any = (), **_: Any) -> int:
    """Count the results of all dimensions but the last, or the row that a tensor is rolled as
    where no dimension is given (TensorTransformations.cpp, roll_common).
    """
    if not x.numel():
        return 0
    if not dims:
        return copied_first(x, tensor_bytes(out))
    return (len(dims) - 1) * tensor_bytes(x) if isinstance(dims, tuple | list) else 0


def _triangle(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the copy of matrices that don't lie one after the other (TriangularOpsUtils.h,
    checkTrilTriuBatchContiguous).
    """
    if x.is_contiguous() or x.dim() < 3:
        return 0
    expected = x.shape[-1] * x.shape[-2]
    for place in range(x.dim() - 3, -1, -1):
        if out is x and place == 0 and (x.stride(0) == 0 or x.shape[0] == 1):
            continue
        if x.stride(place) != expected:
            return tensor_bytes(x)
        expected *= x.shape[place]
    return 0


def _unfold_backward(
    out: Tensor, /, dy: Tensor, sizes: Sequence[int], dim: int, size: int, step: int
) -> int:
    """Count the positions 0, 1, … along the dimension, where windows overlap (UnfoldBackward.cpp,
    unfold_backward).
    """
    return 8 * sizes[dim] if sizes and step < size else 0


def _indexed(out: Any, /, x: Tensor, indices: Sequence[Tensor | None], *_: Any, **__: Any) -> int:
    """Count positions that are copied to int64 (IndexingUtils.h, expandTensors); those of a mask
    are counted where it is read (``Reads``).
    """
    positions = [i for i in indices if i is not None and i.dtype not in _MASKS]
    narrow = sum(index.dtype is torch.int32 for index in positions)
    if not narrow:
        return 0
    return int(8 * narrow * math.prod(torch.broadcast_shapes(*(i.shape for i in positions))))


def _long(index: Tensor) -> int:
    """Count the int64 copy of positions of int32."""
    return converted_bytes(index, torch.int64)


def _gathered(out: Tensor, /, x: Tensor, dim: int, index: Tensor, *_: Any, **__: Any) -> int:
    by_rows = _is_by_rows(x, dim, index, x, least=0)
    return _long(index) + (0 if by_rows or not index.numel() else _float_copy(out))


def _scattered(out: Tensor, /, x: Tensor, dim: int, index: Tensor, *_: Any, **__: Any) -> int:
    return _long(index) + (_float_copy(x) if index.numel() else 0)


def _float_copy(x: Tensor) -> int:
    """Count the float32 copy in which elements of half precision are picked or put
    (ScatterGatherKernel.cpp, create_acc_buffer).
    """
    return tensor_bytes(x, torch.float32) if x.dtype in HALF_DTYPES else 0


def _is_by_rows(x: Tensor, dim: int, index: Tensor, source: Tensor, least: int = 16) -> bool:
    """Say whether whole rows are moved, of at least so many elements, to or from expanded positions
    (TensorAdvancedIndexing.cpp, can_use_expanded_index_path).
    """
    if not (x.numel() and index.numel() and source.numel()) or not x.dtype.is_floating_point:
        return False
    if dim != 0 or not (x.dim() and index.dim() and source.dim()):
        return False
    if source.shape[1:] != index.shape[1:] or index.numel() // index.shape[0] < least:
        return False
    expanded = index.stride(0) == 1 and not any(index.stride()[1:])
    return expanded and source.is_contiguous() and x.is_contiguous()


def _row_sums(x: Tensor) -> int:
    """Count each thread's row of sums in float32, in half precision only
    (ScatterGatherKernel.cpp, cpu_scatter_reduce_expanded_index).
    """
    return torch.get_num_threads() * row_bytes(x) if x.dtype in HALF_DTYPES else 0


def _scatter_added(
    out: Tensor, /, x: Tensor, dim: int, index: Tensor, source: Tensor, **_: Any
) -> int:
    """Count the sums of half precision in float32."""
    if _is_by_rows(x, dim, index, source):
        return _long(index) + _row_sums(x)
    return _scattered(out, x, dim, index)


def _scatter_reduced(
    out: Tensor,
    /,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> int:
    """Count, of a mean, how many elements came to each place, the ones that are added up to that,
    and which places got none (TensorAdvancedIndexing.cpp, scatter_reduce_two).
    """
    if _is_by_rows(x, dim, index, source):
        return _long(index) + _row_sums(x)
    own = _scattered(out, x, dim, index)
    if reduce != "mean":
        return own
    counts = tensor_bytes(out) + tensor_bytes(source)
    return counts + max(own, wrapped_bytes(0, out.dtype) + out.numel())


def _index_added(
    out: Tensor, /, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> int:
    """Count the sums of half precision, which are scattered to expanded positions
    (TensorAdvancedIndexing.cpp, index_add_cpu_).
    """
    if x.dtype not in HALF_DTYPES or x.dim() < 2 or alpha != 1 or index.dtype is torch.int32:
        return 0
    if dim % x.dim() not in (0, x.dim() - 1):
        return 0
    shape = [1] * x.dim()
    shape[dim] = index.numel()
    expanded = index.reshape(shape).expand(source.shape)
    return _scatter_added(out, x, dim % x.dim(), expanded, source)


def _masked_scatter(out: Tensor, /, x: Tensor, mask: Tensor, source: Tensor) -> int:
    """Count a contiguous copy of the source (TensorAdvancedIndexing.cpp, masked_scatter__cpu);
    out of place the result is a clone.
    """
    cloning = 0 if out is x else _clone(out, x)
    return max(cloning, contiguous_copies(source))


def _masked_scatter_backward(out: Tensor, /, dy: Tensor, mask: Tensor, sizes: Any) -> int:
    """Count what masked_select holds where all of the source was used: the mask summed up as
    int64, then, unless one thread goes through rows, as int64 again with its sums so far; a part
    that wasn't used is filled with zeros (TensorAdvancedIndexing.cpp, masked_select_out_impl_cpu).
    """
    shape = torch.broadcast_shapes(dy.shape, mask.shape)
    n_seen, threads = math.prod(shape), torch.get_num_threads()
    counting = 8 + 8 * n_seen - tensor_bytes(out)
    if n_seen >= GRAIN and threads > 1:
        counting += 8 * threads
    serially = (n_seen < GRAIN or threads == 1) and all(
        x.is_contiguous() and x.shape == shape for x in (dy, mask)
    )
    return int(max(counting, tensor_bytes(out), 0 if serially else 16 * n_seen))


def _native_dropout_backward(out: Tensor, /, dy: Tensor, mask: Tensor, scale: float) -> int:
    """Count the product with the mask, which is multiplied by a number (Dropout.cpp,
    native_dropout_backward).
    """
    return tensor_bytes(out) + wrapped_bytes(scale, out.dtype)


def _placed(out: Tensor, /, values: Tensor, boundaries: Tensor, **options: Any) -> int:
    """Count contiguous copies of values and boundaries, and values converted to the boundaries'
    common dtype (Bucketization.cpp, searchsorted_maybe_trim_input_tensors).
    """
    total = contiguous_copies(values, boundaries)
    if values.dtype != boundaries.dtype:
        common = torch.promote_types(values.dtype, boundaries.dtype)
        total += sum(converted_bytes(x, common) for x in (values, boundaries) if x.is_contiguous())
    return total


def _bucketized(out: Tensor, /, values: Tensor, boundaries: Tensor, **options: Any) -> int:
    return _placed(out, values, boundaries)


def _searched(out: Tensor, /, boundaries: Tensor, values: Tensor, **options: Any) -> int:
    return _placed(out, values, boundaries)


def _randperm(out: Tensor, /, *_: Any, **__: Any) -> int:
    """Count the seed's place (TensorFactories.cpp, randperm)."""
    return 8 if out.numel() else 0


def _native_dropout(out: Any, /, x: Tensor, p: float, train: bool | None) -> int:
    """Count the mask converted to the input's dtype, or the number that scales what is left
    (Dropout.cpp, native_dropout_cpu).
    """
    return tensor_bytes(x) if train is not False and x.numel() and p not in (0, 1) else 0


def _copy_of_view(view: Any) -> InternalBytes:
    """Return the formula of the copying form of a view, such as ``t_copy``: the block through
    which a transposed matrix is copied to rows (observed).
    """
    return lambda out, /, *args, **kwargs: transposing_bytes(view(*args, **kwargs))


FORMULAS: dict[Any, InternalBytes] = {
    _aten.alias_copy: _copy_of_view(_aten.alias),
    _aten.as_strided_copy: _copy_of_view(_aten.as_strided),
    _aten.permute_copy: _copy_of_view(_aten.permute),
    _aten.squeeze_copy: _copy_of_view(_aten.squeeze),
    _aten.t_copy: _copy_of_view(_aten.t),
    _aten.transpose_copy: _copy_of_view(_aten.transpose),
    _aten.clone: _clone,
    _aten._to_copy: _clone,
    _aten.copy_: _copy,
    _aten.cat: _joined,
    _aten.stack: _joined,
    _aten.repeat: _repeated,
    _aten.repeat_interleave: _repeat_interleave,
    _aten.roll: _roll,
    _aten.triu: _triangle,
    _aten.tril: _triangle,
    _aten.unfold_backward: _unfold_backward,
    _aten.index: _indexed,
    **dict.fromkeys(
        (_aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index_put),
        _indexed,
    ),
    _aten.gather: _gathered,
    _aten.scatter: _scattered,
    _aten.scatter_: _scattered,
    _aten.scatter_add: _scatter_added,
    _aten.scatter_add_: _scatter_added,
    _aten.scatter_reduce: _scatter_reduced,
    _aten.scatter_reduce_: _scatter_reduced,
    _aten.index_add: _index_added,
    _aten.index_add_: _index_added,
    _aten.masked_scatter: _masked_scatter,
    _aten.masked_scatter_: _masked_scatter,
    _aten.masked_scatter_backward: _masked_scatter_backward,
    _aten.bucketize: _bucketized,
    _aten.searchsorted: _searched,
    _aten.randperm: _randperm,
    _aten.native_dropout: _native_dropout,
    _aten.native_dropout_backward: _native_dropout_backward,
}
