"""What CPU operators of PyTorch allocate out of sight, as read from their source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from reformer_bench.measure.fake.half_precision import attention_bytes, product_bytes


def _common_dtype(operands: Sequence[Any]) -> torch.dtype:
    """Return the dtype that an element-wise operator computes in (ATen/native/TypeProperties)."""
    _, result = elementwise_dtypes(
        *operands, type_promotion_kind=ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
    )
    return result


def _dtype_of_number(number: complex) -> torch.dtype:
    """Return the dtype of the scalar tensor that a Python number is wrapped in."""
    if isinstance(number, bool):
        return torch.bool
    if isinstance(number, int):
        return torch.int64
    return torch.complex128 if isinstance(number, complex) else torch.float64


_aten = torch.ops.aten

InternalBytes = Callable[..., int]
"""A function of an operator's result and arguments: the most bytes that the operator holds beside
them."""


def _bytes(tensor: Tensor, dtype: torch.dtype | None = None) -> int:
    return tensor.numel() * (dtype or tensor.dtype).itemsize


def _number_bytes(number: complex) -> int:
    """Return the size of the tensor that a Python number becomes."""
    return _dtype_of_number(number).itemsize


def _elementwise(out: Any, *operands: Any, **_: Any) -> int:
    """TensorIterator on the CPU: operands, and a result written in place, of another dtype than
    the one computed in are copied to it (TensorIterator.cpp, compute_types); numbers are wrapped
    in tensors first."""
    common = _common_dtype(operands)
    total = 0
    for operand in operands:
        if isinstance(operand, Tensor):
            if operand.dtype != common:
                total += _bytes(operand, common)
        else:
            total += _number_bytes(operand)
            if _dtype_of_number(operand) != common:
                total += common.itemsize
    return total


def _divide(out: Any, *operands: Any, **options: Any) -> int:
    """Count true division of integers, which computes in floats."""
    common = _common_dtype(operands)
    if common.is_floating_point or options.get("rounding_mode") is not None:
        return _elementwise(out, *operands)
    return sum(_bytes(x, out.dtype) for x in operands if isinstance(x, Tensor)) + sum(
        _number_bytes(x) + out.dtype.itemsize for x in operands if not isinstance(x, Tensor)
    )


def _with_scale(out: Any, *operands: Any, **_: Any) -> int:
    """Count addcmul and addcdiv, in which the factor ``value`` stays a number."""
    return _elementwise(out, *operands[:3])


def _sum(out: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the copy to int64 that is made of integers, and the place that a full sum of many
    elements has for each thread (TensorIteratorReduce.cpp, two_pass_reduction).
    """
    copy = _bytes(x, out.dtype) if x.dtype != out.dtype and not x.dtype.is_floating_point else 0
    return copy + _full_reduction(out, x)


def _full_reduction(out: Tensor, x: Tensor, n_results: int = 1) -> int:
    threads = torch.get_num_threads()
    if out.numel() != 1 or x.numel() < _GRAIN or threads == 1:
        return 0
    return n_results * threads * out.dtype.itemsize


_GRAIN = 32768
"""The fewest elements that one thread takes (at::internal::GRAIN_SIZE)."""


def _mean(out: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """Count a sum that is divided in place by a wrapped number; of bfloat16, a float32 copy is
    summed.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        return _bytes(x, torch.float32) + _bytes(out, torch.float32)
    return 8 + out.dtype.itemsize


def _logsumexp(out: Any, x: Tensor, *_: Any, **__: Any) -> int:
    """Count the maxima, and either their magnitudes and which are infinite, or exp(x − max) of the
    whole input (ReduceOps.cpp, logsumexp_out_impl).
    """
    infinite = _bytes(out) + out.numel() + _number_bytes(math.inf)
    return _bytes(out) + max(_bytes(x), infinite)


def _layer_norm(out: Any, x: Tensor, *_: Any) -> int:
    return _contiguous_copies(x)


def _layer_norm_backward(out: Any, dy: Tensor, x: Tensor, shape: list[int], *_: Any) -> int:
    """Count each thread's sums for the gradients of weight and bias (layer_norm_kernel.cpp)."""
    width = 1
    for size in shape:
        width *= size
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    sums = 2 * torch.get_num_threads() * width * wide.itemsize
    return _contiguous_copies(dy, x) + sums


def _softmax(out: Any, x: Tensor, *_: Any) -> int:
    return _contiguous_copies(x)


def _softmax_backward(out: Any, dy: Tensor, y: Tensor, *_: Any) -> int:
    return _contiguous_copies(dy, y)


def _embedding_backward(out: Any, dy: Tensor, tokens: Tensor, *_: Any) -> int:
    return _contiguous_copies(dy, tokens)


def _contiguous_copies(*tensors: Tensor) -> int:
    """Count the copies that kernels make of arguments that aren't contiguous
    (``expect_contiguous``).
    """
    return sum(_bytes(x) for x in tensors if not x.is_contiguous())


def _sort(out: Any, x: Tensor, *arguments: Any, **options: Any) -> int:
    """Count the positions 0, 1, … along the sorted dimension, copied to every row (Sorting.cpp)."""
    dim = options.get("dim", -1)
    return x.shape[dim] * 8 if x.dim() else 0


def _flash_forward(out: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """Scores, maxima, sums and output of one tile for each thread, and for narrow dtypes the
    tile's weights once more (FlashAttentionKernel.cpp, cpu_flash_attention)."""
    rows, keys = _flash_tile(q, k)
    wide, threads = _wide(q), torch.get_num_threads()
    tile = rows * keys + 2 * rows + rows * v.shape[-1]
    narrow = rows * keys * q.dtype.itemsize if q.dtype.itemsize < wide.itemsize else 0
    return threads * (tile * wide.itemsize + narrow)


def _flash_backward(
    out: Any, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
) -> int:
    """Weights and their gradients of one tile for each thread, for narrow dtypes twice, and one
    tile's row sums (FlashAttentionKernel.cpp, cpu_flash_attention_backward). An incoming gradient
    that isn't laid out by (batch, position, head) is copied."""
    rows, keys = _flash_tile(q, k)
    wide, threads = _wide(q), torch.get_num_threads()
    size = wide.itemsize + (q.dtype.itemsize if q.dtype.itemsize < wide.itemsize else 0)
    copy = 0 if _lies_by_position(grad) else _bytes(grad)
    return copy + 2 * threads * rows * keys * size + rows * wide.itemsize


def _lies_by_position(x_BHLD: Tensor) -> bool:
    """Whether x is contiguous once its positions are put before its heads."""
    (b, h, n, d), (by_b, by_h, by_n, by_d) = x_BHLD.shape, x_BHLD.stride()
    expected = 1
    for size, stride in ((d, by_d), (h, by_h), (n, by_n), (b, by_b)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _flash_tile(q: Tensor, k: Tensor) -> tuple[int, int]:
    """(queries, keys) of a tile, by the number of queries."""
    length = q.shape[2]
    rows = 256 if length >= 768 else 64 if length >= 192 else 32
    return min(rows, length), min(512, k.shape[2])


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def _product(packet: Any) -> InternalBytes:
    return lambda result, a, b, **_: product_bytes(packet, a, b)


def _added_product(packet: Any) -> InternalBytes:
    return lambda result, added, a, b, **_: product_bytes(packet, a, b, added)


def _flash(formula: InternalBytes, operator: Any) -> InternalBytes:
    """Count a kernel's own buffers, and those of the products inside it."""
    return lambda out, *args, **kwargs: (
        formula(out, *args, **kwargs) + attention_bytes(formula, operator, args, kwargs)
    )


def _repeat(out: Tensor, x: Tensor, repeats: list[int]) -> int:
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

_OF_CPU: dict[Any, InternalBytes] = {
    _aten.div: _divide,
    _aten.div_: _divide,
    _aten.addcmul: _with_scale,
    _aten.addcmul_: _with_scale,
    _aten.addcdiv: _with_scale,
    _aten.addcdiv_: _with_scale,
    _aten.sum: _sum,
    _aten.mean: _mean,
    _aten.logsumexp: _logsumexp,
    _aten.native_layer_norm: _layer_norm,
    _aten._softmax: _softmax,
    _aten._log_softmax: _softmax,
    _aten._softmax_backward_data: _softmax_backward,
    _aten._log_softmax_backward_data: _softmax_backward,
    _aten.embedding_dense_backward: _embedding_backward,
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
}
for _name in _BINARY:
    for _packet in (getattr(_aten, _name, None), getattr(_aten, _name + "_", None)):
        if _packet is not None:
            _OF_CPU[_packet] = lambda result, a, b, *_, **__: _elementwise(result, a, b)


def internal_bytes_on_cpu(
    operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Return the most bytes that an operator holds on the CPU beside its results and arguments."""
    formula = _OF_CPU.get(operator.overloadpacket)
    return 0 if formula is None else formula(out, *args, **kwargs)
