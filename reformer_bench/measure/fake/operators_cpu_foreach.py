"""What CPU operators on lists of tensors hold: what the operator on one of them holds, one after
the other (ForeachOpsKernels.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.operators_cpu_elementwise import FORMULAS as ELEMENTWISE
from reformer_bench.measure.fake.operators_cpu_parts import InternalBytes

_aten = torch.ops.aten

_OF_TENSORS = (
    *("add", "sub", "mul", "div", "pow", "maximum", "minimum", "clamp_min", "clamp_max"),
    *("addcmul", "addcdiv", "lerp", "sqrt", "rsqrt", "reciprocal", "neg", "abs", "sign", "exp"),
    *("log", "sigmoid", "tanh", "sin", "cos", "round", "floor", "ceil"),
)
_WRAPPED_AS = {"clamp_min": "maximum", "clamp_max": "minimum"}
"""Operators whose numbers are wrapped on lists, though they stay numbers on tensors."""


def _one_by_one(formula: InternalBytes) -> InternalBytes:
    def count(out: Any, /, *operands: Any, **options: Any) -> int:
        lists = [x for x in operands if isinstance(x, list | tuple)]
        # Written in place, nothing is returned.
        results: Sequence[Tensor] = out if out else lists[0]
        held = 0
        for place, result in enumerate(results):
            each = (x[place] if isinstance(x, list | tuple) else x for x in operands)
            held = max(held, formula(result, *each))
        return held

    return count


FORMULAS: dict[Any, InternalBytes] = {}


def _fill() -> None:
    for name in _OF_TENSORS:
        formula = ELEMENTWISE[getattr(_aten, _WRAPPED_AS.get(name, name))]
        for end in ("", "_"):
            packet = getattr(_aten, f"_foreach_{name}{end}", None)
            if packet is not None:
                FORMULAS[packet] = _one_by_one(formula)


_fill()
