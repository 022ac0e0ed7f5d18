"""Tensors by name, and slices of their rows: what all of the model's own passes work with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.standing import kind_of

_SLICE_BYTES = 8 * 2**20
_MOST_SLICES = 16

Tensors = Mapping[str, Tensor]
"""Parameters, or their gradients, by local name, on the device that computes."""


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Return the result of a differentiable function of ours; torch's ``apply`` has no types."""
    return cast(Tensor, function.apply(*arguments))


def compute_dtype(config: ModelConfig) -> torch.dtype:
    """Return the dtype that the sublayers of a config compute in."""
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def detached_parameters(module: nn.Module) -> Tensors:
    """Return a module's parameters by local name, outside autograd."""
    return {name: p.detach() for name, p in module.named_parameters()}


def by_parameter_name(module: nn.Module, tensors: Sequence[Tensor]) -> Tensors:
    """Return tensors, given in the order of a module's parameters, by the names of those."""
    return dict(zip((name for name, _ in module.named_parameters()), tensors, strict=True))


def zero_grads(params: Tensors) -> Tensors:
    """Make room for the gradients of parameters."""
    return {name: torch.zeros_like(value) for name, value in params.items()}


def add_product_(into: Tensor, a: Tensor, b: Tensor, *, fresh: bool = False) -> None:
    """Add a·b to ``into`` in place, or with ``fresh`` write it there.

    Products of a narrower dtype come in the wider one where the device can make them so: on CUDA,
    float32 of half precision (cuda/Blas.cpp, _mm_dtype_out_cuda).
    """
    if a.dtype == into.dtype:
        if fresh:
            torch.mm(a, b, out=into)
        else:
            into.addmm_(a, b)
    elif kind_of(a.device.type) != "cuda":
        if fresh:
            into.copy_(a @ b)
        else:
            into.add_(a @ b)
    elif fresh:
        torch.mm(a, b, out_dtype=into.dtype, out=into)
    else:
        into.add_(torch.mm(a, b, out_dtype=into.dtype))


def row_slices(n_rows: int, n_slices: int) -> Iterator[slice]:
    """Yield ``n_slices`` slices (fewer if there are fewer rows) that cover the rows in order."""
    size = -(-n_rows // min(n_slices, n_rows))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def small_row_slices(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Yield slices of about 8 MiB, at most 16 of them.

    The bound keeps the number of operators from growing with length; a slice is then a sixteenth of
    a tensor that is there anyway.
    """
    wanted = -(-n_rows * row_bytes // _SLICE_BYTES)
    return row_slices(n_rows, max(1, min(wanted, _MOST_SLICES)))
