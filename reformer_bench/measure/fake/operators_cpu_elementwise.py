"""What element-wise CPU operators hold: operands converted to the dtype computed in, and numbers.

Source: TensorIterator.cpp (compute_types), BinaryOps.cpp, UnaryOps.cpp, TensorCompare.cpp, Pow.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.half_precision import computes_natively
from reformer_bench.measure.fake.operators_cpu_parts import (
    InternalBytes,
    common_dtype,
    converted_bytes,
    tensor_bytes,
    wrapped_bytes,
)

_aten = torch.ops.aten


def _computed_in(out: Tensor, operands: Sequence[Any]) -> torch.dtype:
    """Return the dtype computed in: of integers that make floats, that of the result."""
    common = common_dtype(operands)
    makes_floats = out.dtype.is_floating_point and not (
        common.is_floating_point or common.is_complex
    )
    return out.dtype if makes_floats else common


def _converted(out: Tensor, operands: Sequence[Any], computed: torch.dtype) -> int:
    """Count operands of another dtype than the one computed in, and a result of another, which is
    converted at the end.
    """
    total = sum(converted_bytes(x, computed) for x in operands if isinstance(x, Tensor))
    # A comparison writes its booleans directly.
    return total if out.dtype is torch.bool else total + converted_bytes(out, computed)


def elementwise(out: Any, /, *operands: Any, **options: Any) -> int:
    """Count conversions, and numbers, which are wrapped in tensors first."""
    computed = _computed_in(out, operands)
    numbers = sum(wrapped_bytes(x, computed) for x in operands if not isinstance(x, Tensor))
    return numbers + _converted(out, operands, computed)


def _two(out: Any, /, a: Any, b: Any, *_: Any, **options: Any) -> int:
    return elementwise(out, a, b, **options)


def _numbers_stay(out: Tensor, /, *operands: Any, **options: Any) -> int:
    """Count conversions where numbers stay numbers (``pow``, ``clamp``, ``addcmul``)."""
    given = [x for x in operands if isinstance(x, Tensor | bool | int | float | complex)]
    return _converted(out, operands, _computed_in(out, given))


def _scaled(out: Tensor, /, *operands: Any, **options: Any) -> int:
    """Count ``addcmul`` and ``addcdiv``, whose factor decides no dtype."""
    return _numbers_stay(out, *operands[:3], **options)


def _one(out: Tensor, /, x: Tensor, *_: Any, **options: Any) -> int:
    """Count a function of one tensor, whose other arguments decide no dtype."""
    if out.dtype is torch.bool:
        return 0
    if x.dtype.is_complex and not out.dtype.is_complex:
        # abs and angle are made as complex numbers first (UnaryOps.cpp,
        # unary_op_impl_with_complex_to_float_out).
        return tensor_bytes(x)
    return _numbers_stay(out, x, **options)


def _powered(out: Tensor, /, base: Any, exponent: Any, **options: Any) -> int:
    """Count ``pow``: a number to the power of a tensor is wrapped, unless it is 1; a tensor to the
    power 0, 1 or of another number is not (Pow.cpp).
    """
    if isinstance(base, Tensor) and isinstance(exponent, Tensor):
        return elementwise(out, base, exponent, **options)
    if isinstance(base, Tensor):
        return 0 if exponent in (0, 1) else _numbers_stay(out, base, exponent, **options)
    return 0 if base == 1 else elementwise(out, base, exponent, **options)


def _divided(out: Any, /, a: Any, b: Any, *_: Any, **options: Any) -> int:
    """Count division; integers are divided as floats, or as integers where rounded."""
    if options.get("rounding_mode") is not None and not out.dtype.is_floating_point:
        computed = out.dtype
        numbers = sum(wrapped_bytes(x, computed) for x in (a, b) if not isinstance(x, Tensor))
        return numbers + _converted(out, (a, b), computed)
    return elementwise(out, a, b, **{k: v for k, v in options.items() if k == "out"})


def _where(out: Tensor, /, condition: Tensor, a: Any, b: Any, **_: Any) -> int:
    """Count numbers, and what has another dtype than the result (TensorCompare.cpp, where)."""
    total = converted_bytes(condition, torch.bool)
    for x in (a, b):
        total += converted_bytes(x, out.dtype) if isinstance(x, Tensor) else out.dtype.itemsize
    return total


def _isinf(out: Tensor, /, x: Tensor) -> int:
    """Count the magnitudes, compared with a number (TensorCompare.cpp, isinf)."""
    if not x.dtype.is_floating_point:
        return 0
    return tensor_bytes(x) + wrapped_bytes(float("inf"), x.dtype)


def _in_degrees(out: Tensor, /, x: Tensor, **options: Any) -> int:
    """Count the factor between degrees and radians (UnaryOps.cpp, deg2rad_out)."""
    return wrapped_bytes(1.0, out.dtype) + _numbers_stay(out, x, 1.0, **options)


def _ldexp(out: Tensor, /, a: Tensor, b: Tensor) -> int:
    """Count 2 to the power b, made before the product (BinaryOps.cpp, ldexp)."""
    power = tensor_bytes(b, torch.float32 if not b.dtype.is_floating_point else b.dtype)
    making = wrapped_bytes(2.0, out.dtype) + converted_bytes(b, out.dtype)
    return power + max(converted_bytes(a, out.dtype), making - tensor_bytes(out))


def _gelu_backward(
    out: Tensor, /, dy: Tensor, x: Tensor, *, approximate: str = "none", **options: Any
) -> int:
    """Count, where dy and x differ in dtype and oneDNN computes (Activation.cpp,
    gelu_backward_out_cpu), dy and the result in the dtype of x beside the conversions.
    """
    converted = _numbers_stay(out, dy, x, **options)
    native = x.dtype is torch.float32 or (x.dtype is torch.bfloat16 and computes_natively(x.dtype))
    if dy.dtype == x.dtype or approximate != "none" or not native or not x.is_contiguous():
        return converted
    return converted + converted_bytes(dy, x.dtype) + converted_bytes(out, x.dtype)


WITH_NUMBERS_WRAPPED = (
    *("add", "sub", "rsub", "mul", "fmod", "remainder", "atan2", "logaddexp", "floor_divide"),
    *("lt", "le", "gt", "ge", "eq", "ne", "maximum", "minimum", "fmax", "fmin", "logaddexp2"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor"),
    *("copysign", "hypot", "xlogy", "heaviside", "nextafter", "bitwise_left_shift"),
    *("bitwise_right_shift", "__and__", "__or__", "__xor__", "gcd", "lcm"),
)
"""Operators of two operands whose Python numbers become tensors."""

WITH_NUMBERS_KEPT = (
    *("clamp", "clamp_min", "clamp_max", "threshold_backward", "sigmoid_backward"),
    *("tanh_backward", "gelu_backward", "silu_backward", "softplus_backward", "elu_backward"),
    *("leaky_relu_backward", "hardtanh_backward", "hardswish_backward", "hardsigmoid_backward"),
    *("log_sigmoid_backward", "mish_backward", "logit_backward", "lerp"),
)
"""Operators of one or more tensors whose Python numbers stay numbers."""

OF_ONE = (
    *("abs", "neg", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
    *("atanh", "sigmoid", "reciprocal", "floor", "ceil", "round", "trunc", "frac", "sign", "sgn"),
    *("erf", "erfc", "erfinv", "lgamma", "digamma", "relu", "gelu", "silu", "mish", "softplus"),
    *("elu", "leaky_relu", "hardtanh", "hardswish", "hardsigmoid", "threshold", "logit", "sinc"),
    *("nan_to_num", "logical_not", "bitwise_not", "positive", "angle", "square", "isnan"),
    *("signbit", "isposinf", "isneginf", "i0", "celu", "selu", "relu6"),
)
"""Functions of one tensor."""

FORMULAS: dict[Any, InternalBytes] = {
    _aten.where: _where,
    _aten.isinf: _isinf,
    _aten.deg2rad: _in_degrees,
    _aten.rad2deg: _in_degrees,
    _aten.ldexp: _ldexp,
}
"""Filled below with the operators of each group."""


def _fill() -> None:
    groups: tuple[tuple[Sequence[str], InternalBytes], ...] = (
        (WITH_NUMBERS_WRAPPED, _two),
        (WITH_NUMBERS_KEPT, _numbers_stay),
        (OF_ONE, _one),
        (("pow",), _powered),
        (("div", "true_divide"), _divided),
        (("addcmul", "addcdiv"), _scaled),
    )
    for names, formula in groups:
        for name in names:
            for packet in (getattr(_aten, name, None), getattr(_aten, name + "_", None)):
                if packet is not None:
                    FORMULAS[packet] = formula


_fill()
FORMULAS[_aten.gelu_backward] = _gelu_backward
