"""Works out which dtype an element-wise operator computes in
(ATen/native/TypeProperties).

It is written out because torch.result_type itself goes through the operators that are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def common_dtype(operands: Sequence[Any]) -> torch.dtype:
    """Return the dtype that tensors and Python numbers are promoted to; TypeError without
    a tensor.
    """
    # Tensors with dimensions come first; scalar tensors, then numbers, only raise the category.
    groups: list[torch.dtype | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, Tensor):
            place, dtype = (0 if operand.dim() else 1), operand.dtype
        else:
            place, dtype = 2, _dtype_in_promotion(operand)
        known = groups[place]
        groups[place] = dtype if known is None else torch.promote_types(known, dtype)
    result = groups[0]
    for lower in groups[1:]:
        result = _combined(result, lower)
    if result is None:
        raise TypeError("an operator needs an operand to have a dtype")
    return result


def dtype_of_number(number: Any) -> torch.dtype:
    """Return the dtype of the scalar tensor that a Python number is wrapped in."""
    if isinstance(number, bool):
        return torch.bool
    if isinstance(number, int):
        return torch.int64
    return torch.complex128 if isinstance(number, complex) else torch.float64


def _dtype_in_promotion(number: Any) -> torch.dtype:
    dtype = dtype_of_number(number)
    if dtype.is_floating_point:
        return torch.get_default_dtype()
    return (
        torch.promote_types(torch.get_default_dtype(), torch.complex32)
        if dtype.is_complex
        else dtype
    )


def _combined(higher: torch.dtype | None, lower: torch.dtype | None) -> torch.dtype | None:
    """Return a group's dtype after one that counts less."""
    if higher is None or lower is None:
        return higher or lower
    if higher.is_complex:
        return higher
    if higher.is_floating_point:
        return torch.promote_types(higher, lower) if lower.is_complex else higher
    if higher is torch.bool or lower.is_floating_point or lower.is_complex:
        return torch.promote_types(higher, lower)
    return higher
