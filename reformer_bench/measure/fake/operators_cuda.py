"""What CUDA operators of PyTorch allocate inside, as read from their source.

An operator sees fake CPU tensors here: what PyTorch would choose on CUDA is worked out from them.
Type promotion and Python numbers cost nothing: CUDA kernels convert in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _logsumexp(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count exp(x − max) of the whole input, and the maxima; the code is the same as on the CPU."""
    return int((x.numel() + out.numel()) * x.dtype.itemsize)


def _sort(out: Any, /, x: Tensor, *_: Any, **__: Any) -> int:
    """Count a second buffer of keys and one of positions, through which rows of more than 4096
    elements go (cuda/Sort.cpp, segmented sort by CUB's double buffers); shorter ones sort in place.
    """
    if x.dim() == 0 or x.shape[-1] <= 4096:
        return 0
    return int(x.numel() * (x.dtype.itemsize + 8))


def _attention_backward(out: Any, /, grad: Tensor, q: Tensor, *_: Any, **__: Any) -> int:
    """Count the gradient of the queries summed up in float32, and each row's dot product of output
    and gradient (flash_attn/flash_api.cpp, mha_bwd: dq_accum and softmax_d, rows in steps of 128,
    widths of 32; the memory-efficient backward keeps the same sums for float32).
    """
    batch, heads, length, width = q.shape
    rows = batch * heads * math.ceil(length / 128) * 128
    accumulated = rows * math.ceil(width / 32) * 32 * 4 if q.dtype.itemsize < 4 else 0
    return accumulated + rows * 4


# Attention's forward pass is not here: flash (half precision) and memory-efficient (float32)
# kernels hold no scores.
_FORMULAS: dict[Any, Callable[..., int]] = {
    _aten.logsumexp: _logsumexp,
    _aten.sort: _sort,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def internal_bytes_on_cuda(
    operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Estimate the bytes that an operator holds on CUDA beside its results and arguments."""
    formula = _FORMULAS.get(operator.overloadpacket)
    return 0 if formula is None else formula(out, *args, **kwargs)
