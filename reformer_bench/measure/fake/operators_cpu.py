"""What CPU operators of PyTorch allocate inside: read from their source, or observed. Samples of
them are measured by ``validate --operators``.

B batch, H heads, L length, D head width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.by_operator import by_operator
from reformer_bench.measure.fake.half_precision import (
    HALF_DTYPES,
    attention_bytes,
    is_read_by_blas,
    product_bytes,
)
from reformer_bench.measure.fake.operators_cpu_asked import FORMULAS as ASKED
from reformer_bench.measure.fake.operators_cpu_elementwise import FORMULAS as ELEMENTWISE
from reformer_bench.measure.fake.operators_cpu_foreach import FORMULAS as FOREACH
from reformer_bench.measure.fake.operators_cpu_index import FORMULAS as INDEX
from reformer_bench.measure.fake.operators_cpu_loss import FORMULAS as LOSS
from reformer_bench.measure.fake.operators_cpu_nn import NN_FORMULAS
from reformer_bench.measure.fake.operators_cpu_nothing import HOLDS_NOTHING
from reformer_bench.measure.fake.operators_cpu_parts import (
    InternalBytes,
    contiguous_copies,
)
from reformer_bench.measure.fake.operators_cpu_parts import tensor_bytes as _bytes
from reformer_bench.measure.fake.operators_cpu_parts import wide as _wide
from reformer_bench.measure.fake.operators_cpu_reduce import FORMULAS as REDUCE
from reformer_bench.measure.fake.operators_moe import grouped_bytes

_aten = torch.ops.aten
TABLE_VERSION = "2.13"
"""The version of PyTorch that the formulas hold for."""


def table_note(version: str = torch.__version__) -> str | None:
    """Say that the table is of another version of PyTorch than the one at hand; None where
    it is of this one (by major and minor number).
    """
    if version.split(".")[:2] == TABLE_VERSION.split("."):
        return None
    return (
        f"what operators hold inside is known of PyTorch {TABLE_VERSION}; this is "
        f"{version}: `reformer-bench validate --operators` compares"
    )


@by_operator
def is_known(operator: Any) -> bool:
    """Say whether what an operator holds was looked up: it has a formula, or was found to hold
    nothing. A view holds nothing.
    """
    if operator.namespace in ("prim", "profiler") or operator.is_view:
        return True
    packet = operator.overloadpacket
    return packet in _FORMULAS or packet in HOLDS_NOTHING


def internal_bytes_on_cpu(
    operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Return the most bytes that an operator holds on the CPU beside its results and arguments."""
    formula = _formula(operator)
    if formula is None:
        return 0
    if "out" in kwargs:
        # Where a result is written to is no argument: it is the result.
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
    return formula(out, *args, **kwargs)


@by_operator
def _formula(operator: Any) -> InternalBytes | None:
    return _FORMULAS.get(operator.overloadpacket)


def _layer_norm_backward(
    out: Any, /, dy: Tensor, x: Tensor, shape: list[int], *rest: Any, **_: Any
) -> int:
    """Count each thread's sums for the gradients of weight and bias, if either is asked for
    (layer_norm_kernel.cpp, LayerNormBackwardKernelImplInternal).
    """
    sums = 2 * torch.get_num_threads() * math.prod(shape) * _wide(x.dtype).itemsize
    is_asked_for = any(rest[-1][1:])
    return contiguous_copies(dy, x) + (sums if is_asked_for else 0)


def _copy_of_one(out: Any, /, x: Tensor, *_: Any) -> int:
    return contiguous_copies(x)


def _safe_softmax(out: Tensor, /, x: Tensor, dim: int, *_: Any, **__: Any) -> int:
    """Count the copies that a softmax makes of its argument, and after it which scores are −∞,
    which rows are nothing else, and the zero that those become (SoftMax.cpp, _safe_softmax).
    """
    copies = _bytes(out) * ((x.dtype != out.dtype) + (not x.is_contiguous()))
    rows = out.numel() // max(1, out.shape[dim]) if out.dim() else 1
    return max(copies, out.numel() + rows + out.dtype.itemsize)


def _copies_of_two(out: Any, /, dy: Tensor, x: Tensor, *_: Any) -> int:
    return contiguous_copies(dy, x)


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


def _vector_product(out: Tensor, /, matrix: Tensor, vector: Tensor) -> int:
    """Count the copy of a matrix that lies neither by rows nor by columns (Blas.cpp, gemv)."""
    return 0 if is_read_by_blas(matrix) else _bytes(matrix)


def _added_vector_product(
    out: Tensor, /, added: Tensor, matrix: Tensor, vector: Tensor, **_: Any
) -> int:
    return _vector_product(out, matrix, vector)


def _flash(formula: InternalBytes, operator: Any) -> InternalBytes:
    """Count a kernel's own buffers, and those of the products inside it."""
    return lambda out, /, *args, **kwargs: (
        formula(out, *args, **kwargs) + attention_bytes(formula, operator, args, kwargs)
    )


_FLASH = _aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward

_FORMULAS: dict[Any, InternalBytes] = {
    **ELEMENTWISE,
    **FOREACH,
    **REDUCE,
    **INDEX,
    **LOSS,
    _aten.native_layer_norm: _copy_of_one,
    _aten._softmax: _copy_of_one,
    _aten._log_softmax: _copy_of_one,
    _aten._softmax_backward_data: _copies_of_two,
    _aten._log_softmax_backward_data: _copies_of_two,
    _aten.embedding_dense_backward: _copies_of_two,
    _aten.native_layer_norm_backward: _layer_norm_backward,
    _aten._safe_softmax: _safe_softmax,
    _FLASH: _flash(_flash_forward, _FLASH),
    _FLASH_BACKWARD: _flash(_flash_backward, _FLASH_BACKWARD),
    _aten.mm: _product(_aten.mm),
    _aten.bmm: _product(_aten.bmm),
    _aten.addmm: _added_product(_aten.addmm),
    _aten.addmm_: _added_product(_aten.addmm),
    _aten.baddbmm: _added_product(_aten.baddbmm),
    _aten.baddbmm_: _added_product(_aten.baddbmm),
    _aten.mv: _vector_product,
    _aten.addmv: _added_vector_product,
    _aten._grouped_mm: grouped_bytes,
    **NN_FORMULAS,
    **ASKED,
}
