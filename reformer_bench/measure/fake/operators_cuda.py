"""What CUDA operators of PyTorch allocate out of sight, as read from their source.

An operator sees fake CPU tensors here: what PyTorch would choose on CUDA is worked out from them.
Type promotion and Python numbers cost nothing: CUDA kernels convert in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _logsumexp(out: Tensor, x: Tensor, *_: Any, **__: Any) -> int:
    """Count exp(x − max) of the whole input, and the maxima; the code is the same as on the CPU."""
    return (x.numel() + out.numel()) * x.dtype.itemsize


def _sort(out: Any, x: Tensor, *_: Any, **__: Any) -> int:
    """Rows of up to 4096 elements sort in place; longer ones go through a second buffer of keys
    and one of positions (cuda/Sort.cpp, segmented sort by CUB's double buffers)."""
    if x.dim() == 0 or x.shape[-1] <= 4096:
        return 0
    return x.numel() * (x.dtype.itemsize + 8)


def _attention_forward(out: Any, q: Tensor, *_: Any, **__: Any) -> int:
    """Count nothing: flash (half precision) and memory-efficient (float32) kernels hold
    no scores.
    """
    return 0


def _attention_backward(out: Any, grad: Tensor, q: Tensor, *_: Any, **__: Any) -> int:
    """Gradient of the queries summed up in float32, and each row's dot product of output and
    gradient (flash_attn/flash_api.cpp, mha_bwd: dq_accum and softmax_d, rows in steps of 128,
    widths of 32; the memory-efficient backward keeps the same sums for float32)."""
    batch, heads, length, width = q.shape
    rows = batch * heads * _round_up(length, 128)
    accumulated = rows * _round_up(width, 32) * 4 if q.dtype.itemsize < 4 else 0
    return accumulated + rows * 4


_OF_CUDA: dict[Any, Callable[..., int]] = {
    _aten.logsumexp: _logsumexp,
    _aten.sort: _sort,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def internal_bytes_on_cuda(
    operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Estimate the bytes that an operator holds on CUDA beside its results and arguments."""
    formula = _OF_CUDA.get(operator.overloadpacket)
    return 0 if formula is None else formula(out, *args, **kwargs)
