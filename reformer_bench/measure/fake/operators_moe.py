"""The products of experts: each expert's weights times the tokens sent to it, in one operator.

S pairs of token and expert, E experts, K width of inputs, N width of outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.half_precision import product_bytes

_ALIGNMENT_BYTES = 16


def grouped_product(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Make the result of ``_grouped_mm``: [S, K] · [E, K, N] gives [S, N], [K, S] · [S, N] gives
    [E, K, N], and [E, S, K] · [E, K, N] gives [E, S, N].

    Rows are laid 16 bytes apart, or a multiple of that (GroupedMMUtils.h,
    create_grouped_gemm_output_tensor). Torch's own shape function asks for bfloat16, which the CPU
    kernel does not.
    """
    dtype = out_dtype or a.dtype
    groups = () if offs is None else (offs.shape[0],)
    if a.dim() == 2 and b.dim() == 2:
        size = (*groups, a.shape[0], b.shape[1])
    elif a.dim() == 2:
        size = (a.shape[0], b.shape[-1])
    elif b.dim() == 2:
        size = (a.shape[1], b.shape[1])
    else:
        size = (a.shape[0], a.shape[1], b.shape[-1])
    unit = _ALIGNMENT_BYTES // dtype.itemsize
    row = -(-size[-1] // unit) * unit
    stride = (row, 1) if len(size) == 2 else (size[1] * row, row, 1)
    return torch.empty_strided(size, stride, dtype=dtype)


def grouped_bytes(out: Any, /, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """Count what the products inside hold, one after another (GroupedMMUtils.h,
    _grouped_mm_fallback): no more than one expert's that gets all rows.
    """
    if a.dim() == 3 and b.dim() == 3:
        return product_bytes(torch.ops.aten.bmm, a, b)
    one_a, one_b = (x[0] if x.dim() == 3 else x for x in (a, b))
    return product_bytes(torch.ops.aten.mm, one_a, one_b)
