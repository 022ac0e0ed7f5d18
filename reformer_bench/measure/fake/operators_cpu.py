"""What CPU operators of PyTorch allocate inside, as read from their source.

B batch, H heads, L length, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from reformer_bench.measure.fake.half_precision import HALF_DTYPES, attention_bytes, product_bytes
from reformer_bench.measure.fake.operators_cpu_nn import NN_FORMULAS

_aten = torch.ops.aten
_GRAIN = 32768
"""The fewest elements that one thread takes (at::internal::GRAIN_SIZE)."""

InternalBytes = Callable[..., int]
"""A function of an operator's result and arguments: the most bytes that the operator holds beside
them."""


def internal_bytes_on_cpu(
    operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Return the most bytes that an operator holds on the CPU beside its results and arguments."""
    formula = _FORMULAS.get(operator.overloadpacket)
    return 0 if formula is None else formula(out, *args, **kwargs)


def _bytes(tensor: Tensor, dtype: torch.dtype | None = None) -> int:
    return int(tensor.numel() * (dtype or tensor.dtype).itemsize)


def _dtype_of_number(number: complex) -> torch.dtype:
    """Return the dtype of the scalar tensor that a Python number becomes."""
    if isinstance(number, bool):
        return torch.bool
    if isinstance(number, int):
        return torch.int64
    return torch.complex128 if isinstance(number, complex) else torch.float64


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels add up numbers of a dtype."""
    return torch.float32 if dtype in HALF_DTYPES else dtype


def _contiguous_copies(*tensors: Tensor) -> int:
    """Count the copies that kernels make of arguments that aren't contiguous
    (``expect_contiguous``).
    """
    return sum(_bytes(x) for x in tensors if not x.is_contiguous())


def _common_dtype(operands: Sequence[Any]) -> torch.dtype:
    """Return the dtype that an element-wise operator computes in (ATen/native/TypeProperties)."""
    kind = ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
    return elementwise_dtypes(*operands, type_promotion_kind=kind)[1]


def _elementwise(out: Any, /, *operands: Any, **_: Any) -> int:
    """Count what TensorIterator copies: operands, and a result written in place, of another dtype
    than the one computed in (TensorIterator.cpp, compute_types); numbers are wrapped in tensors
    first.
    """
    common = _common_dtype(operands)
    total = 0
    for operand in operands:
        is_tensor = isinstance(operand, Tensor)
        dtype = operand.dtype if is_tensor else _dtype_of_number(operand)
        total += 0 if is_tensor else dtype.itemsize
        if dtype != common:
            total += (operand.numel() if is_tensor else 1) * common.itemsize
    return total


def _binary(out: Any, /, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return _elementwise(out, a, b)


def _divide(out: Any, /, *operands: Any, **options: Any) -> int:
    """Count true division of integers, which computes in floats."""
    common = _common_dtype(operands)
    if common.is_floating_point or options.get("rounding_mode") is not None:
        return _elementwise(out, *operands)
    return sum(
        _bytes(x, out.dtype)
        if isinstance(x, Tensor)
        else _dtype_of_number(x).itemsize + out.dtype.itemsize
        for x in operands
    )


def _with_scale(out: Any, /, *operands: Any, **_: Any) -> int:
    """Count addcmul and addcdiv, in which the factor ``value`` stays a number."""
    return _elementwise(out, *operands[:3])


def _sum(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the copy to int64 that is made of integers, and the place that a full sum of many
    elements has for each thread (TensorIteratorReduce.cpp, two_pass_reduction).
    """
    copy = _bytes(x, out.dtype) if x.dtype != out.dtype and not x.dtype.is_floating_point else 0
    threads = torch.get_num_threads()
    in_two_passes = out.numel() == 1 and x.numel() >= _GRAIN and threads > 1
    return copy + (threads * out.dtype.itemsize if in_two_passes else 0)


def _mean(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count a sum that is divided in place by a wrapped number; of bfloat16, a float32 copy is
    summed.
    """
    if x.dtype in HALF_DTYPES:
        return _bytes(x, torch.float32) + _bytes(out, torch.float32)
    return 8 + out.dtype.itemsize


def _logsumexp(out: Any, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the maxima, and either their magnitudes and which are infinite, or exp(x − max) of the
    whole input (ReduceOps.cpp, logsumexp_out_impl).
    """
    infinite: int = _bytes(out) + out.numel() + torch.float64.itemsize
    return _bytes(out) + max(_bytes(x), infinite)


def _layer_norm_backward(out: Any, /, dy: Tensor, x: Tensor, shape: list[int], *_: Any) -> int:
    """Count each thread's sums for the gradients of weight and bias (layer_norm_kernel.cpp)."""
    sums = 2 * torch.get_num_threads() * math.prod(shape) * _wide(x.dtype).itemsize
    return _contiguous_copies(dy, x) + sums


def _copy_of_one(out: Any, /, x: Tensor, *_: Any) -> int:
    return _contiguous_copies(x)


def _copies_of_two(out: Any, /, dy: Tensor, x: Tensor, *_: Any) -> int:
    return _contiguous_copies(dy, x)


def _sort(out: Any, /, x: Tensor, *_: Any, dim: int = -1, **__: Any) -> int:
    """Count the positions 0, 1, … along the sorted dimension, copied to every row (Sorting.cpp)."""
    return x.shape[dim] * 8 if x.dim() else 0


def _flash_forward(out: Any, /, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Count scores, maxima, sums and output of one tile for each thread, and in half precision the
    tile's weights once more (FlashAttentionKernel.cpp, cpu_flash_attention).
    """
    rows, keys = _flash_tile(q, k)
    tile = rows * keys + 2 * rows + rows * v.shape[-1]
    weights = rows * keys * q.dtype.itemsize if q.dtype in HALF_DTYPES else 0
    return torch.get_num_threads() * (tile * _wide(q.dtype).itemsize + weights)


def _flash_backward(
    out: Any, /, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
) -> int:
    """Count weights and their gradients of one tile for each thread, in half precision twice, and
    one tile's row sums (FlashAttentionKernel.cpp, cpu_flash_attention_backward). An incoming
    gradient that isn't laid out by (batch, position, head) is copied.
    """
    rows, keys = _flash_tile(q, k)
    wide = _wide(q.dtype).itemsize
    size = wide + (q.dtype.itemsize if q.dtype in HALF_DTYPES else 0)
    copy = 0 if _lies_by_position(grad) else _bytes(grad)
    return copy + 2 * torch.get_num_threads() * rows * keys * size + rows * wide


def _lies_by_position(x_BHLD: Tensor) -> bool:
    """Say whether x is contiguous once its positions are put before its heads."""
    (b, h, n, d), (by_b, by_h, by_n, by_d) = x_BHLD.shape, x_BHLD.stride()
    expected = 1
    for size, stride in ((d, by_d), (h, by_h), (n, by_n), (b, by_b)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _flash_tile(q: Tensor, k: Tensor) -> tuple[int, int]:
    """Return how many queries and keys a tile has, which the number of queries decides."""
    length = q.shape[2]
    rows = 256 if length >= 768 else 64 if length >= 192 else 32
    return min(rows, length), min(512, k.shape[2])


def _product(packet: Any) -> InternalBytes:
    return lambda result, a, b, **_: product_bytes(packet, a, b)


def _added_product(packet: Any) -> InternalBytes:
    return lambda result, added, a, b, **_: product_bytes(packet, a, b, added)


def _flash(formula: InternalBytes, operator: Any) -> InternalBytes:
    """Count a kernel's own buffers, and those of the products inside it."""
    return lambda out, /, *args, **kwargs: (
        formula(out, *args, **kwargs) + attention_bytes(formula, operator, args, kwargs)
    )


def _repeat(out: Tensor, /, x: Tensor, repeats: list[int]) -> int:
    """Count 32 bytes for each dimension."""
    return 32 * len(repeats)


_BINARY = (
    *("add", "sub", "rsub", "mul", "fmod", "remainder", "atan2", "logaddexp"),
    "floor_divide",
    *("lt", "le", "gt", "ge", "eq", "ne", "maximum", "minimum"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor"),
)

_FLASH = _aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward

_FORMULAS: dict[Any, InternalBytes] = {
    _aten.div: _divide,
    _aten.div_: _divide,
    _aten.addcmul: _with_scale,
    _aten.addcmul_: _with_scale,
    _aten.addcdiv: _with_scale,
    _aten.addcdiv_: _with_scale,
    _aten.sum: _sum,
    _aten.mean: _mean,
    _aten.logsumexp: _logsumexp,
    _aten.native_layer_norm: _copy_of_one,
    _aten._softmax: _copy_of_one,
    _aten._log_softmax: _copy_of_one,
    _aten._softmax_backward_data: _copies_of_two,
    _aten._log_softmax_backward_data: _copies_of_two,
    _aten.embedding_dense_backward: _copies_of_two,
    _aten.native_layer_norm_backward: _layer_norm_backward,
    _aten.sort: _sort,
    _FLASH: _flash(_flash_forward, _FLASH),
    _FLASH_BACKWARD: _flash(_flash_backward, _FLASH_BACKWARD),
    _aten.mm: _product(_aten.mm),
    _aten.bmm: _product(_aten.bmm),
    _aten.addmm: _added_product(_aten.addmm),
    _aten.addmm_: _added_product(_aten.addmm),
    _aten.baddbmm: _added_product(_aten.baddbmm),
    _aten.baddbmm_: _added_product(_aten.baddbmm),
    _aten.repeat: _repeat,
    **NN_FORMULAS,
}
for _name in _BINARY:
    for _packet in (getattr(_aten, _name, None), getattr(_aten, _name + "_", None)):
        if _packet is not None:
            _FORMULAS[_packet] = _binary
