"""What CPU losses hold: the loss of each element, and what its mean or sum holds.

Source: Loss.cpp, LossNLL.cpp.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.by_operator import by_operator
from reformer_bench.measure.fake.operators_cpu_parts import (
    InternalBytes,
    contiguous_copies,
    tensor_bytes,
    wrapped_bytes,
)
from reformer_bench.measure.fake.operators_cpu_reduce import mean_bytes, sum_bytes

_aten = torch.ops.aten
_NONE, _MEAN = 0, 1
"""How the losses of elements are reduced (Reduction.h)."""


def _n_elements(*tensors: Tensor) -> int:
    return math.prod(torch.broadcast_shapes(*(x.shape for x in tensors)))


def _reducing(out: Tensor, n_elements: int, reduction: int) -> int:
    """Count what the mean or sum of the losses to one number holds beside both."""
    if reduction == _MEAN:
        return mean_bytes(out, n_elements, out.dtype)
    return sum_bytes(out, n_elements)


def _of_elements(out: Tensor, /, x: Tensor, y: Tensor, reduction: int = _MEAN, *_: Any) -> int:
    """Count the loss of each element beside their mean or sum (mse_loss, smooth_l1_loss,
    huber_loss).
    """
    if reduction == _NONE:
        return 0
    n_elements = _n_elements(x, y)
    return n_elements * out.dtype.itemsize + _reducing(out, n_elements, reduction)


def _in_place(out: Tensor, x: Tensor, y: Tensor, reduction: int) -> int:
    """Count the mean or sum, which is copied into the tensor that held each element's loss."""
    if reduction == _NONE:
        return 0
    return out.dtype.itemsize + _reducing(out, _n_elements(x, y), reduction)


def _soft_margin(out: Tensor, /, x: Tensor, y: Tensor, reduction: int = _MEAN) -> int:
    return _in_place(out, x, y, reduction)


def _soft_margin_backward(
    out: Tensor, /, dy: Tensor, x: Tensor, y: Tensor, reduction: int = _MEAN
) -> int:
    """Count exp(−yx) with its part, or with the numbers that it is multiplied by."""
    each = tensor_bytes(out)
    return max(2 * each, each + wrapped_bytes(1.0, out.dtype))


def _cross_entropy(
    out: Tensor, /, x: Tensor, y: Tensor, weight: Any = None, reduction: int = _MEAN
) -> int:
    return _in_place(out, x, y, reduction)


def _cross_entropy_backward(
    out: Tensor, /, dy: Tensor, x: Tensor, y: Tensor, weight: Any = None, reduction: int = _MEAN
) -> int:
    """Count the number of elements, which the mean's gradient is divided by."""
    return wrapped_bytes(1, out.dtype) if reduction == _MEAN else 0


def _cross_entropy_of_logits(
    out: Tensor,
    /,
    x: Tensor,
    y: Tensor,
    weight: Any = None,
    pos_weight: Tensor | None = None,
    reduction: int = _MEAN,
) -> int:
    """Count the logarithms of the sigmoids and each element's loss, and before these what the
    weights of positives come to.
    """
    each = tensor_bytes(x)
    reduced = each if reduction == _NONE else 2 * each + _reducing(out, x.numel(), reduction)
    if pos_weight is None:
        return reduced
    weighing = 2 * each + tensor_bytes(pos_weight) + wrapped_bytes(1, x.dtype)
    return max(reduced, weighing - tensor_bytes(out))


def _likelihood(
    out: Any, /, x: Tensor, y: Tensor, weight: Any = None, reduction: int = _MEAN, *_: Any
) -> int:
    """Count the copy of logarithms that don't lie in a row, where their mean or sum is taken
    (LossNLL.cpp, nll_loss_out_frame).
    """
    return 0 if reduction == _NONE and x.dim() == 2 else contiguous_copies(x)


FORMULAS: dict[Any, InternalBytes] = {
    **dict.fromkeys((_aten.mse_loss, _aten.smooth_l1_loss, _aten.huber_loss), _of_elements),
    _aten.soft_margin_loss: _soft_margin,
    _aten.soft_margin_loss_backward: _soft_margin_backward,
    _aten.binary_cross_entropy: _cross_entropy,
    _aten.binary_cross_entropy_backward: _cross_entropy_backward,
    _aten.binary_cross_entropy_with_logits: _cross_entropy_of_logits,
    _aten.nll_loss_forward: _likelihood,
}

_KEPT = frozenset(
    (
        _aten.mse_loss.default,
        _aten.smooth_l1_loss.default,
        _aten.soft_margin_loss.default,
        _aten.binary_cross_entropy.default,
    )
)


@by_operator
def _may_keep(operator: Any) -> bool:
    return operator in _KEPT


def kept_elements(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Return how many elements the memory of a reduced loss keeps: of those that shrink the tensor
    of each element's loss to one number, all; None for every other operator.
    """
    if not _may_keep(operator):
        return None
    place = 3 if operator is _aten.binary_cross_entropy.default else 2
    reduction = kwargs.get("reduction", args[place] if len(args) > place else _MEAN)
    return None if reduction == _NONE else _n_elements(args[0], args[1])
