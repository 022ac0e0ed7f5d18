"""DeviceModel describes how a kind of device allocates, as far as that is known without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from reformer_bench.measure.fake.ledger import exactly
from reformer_bench.measure.fake.operators_cpu import hidden_on_cpu
from reformer_bench.measure.fake.operators_cuda import hidden_on_cuda

_CUDA_BLOCK_BYTES = 512
"""kMinBlockSize of CUDACachingAllocator: every allocation is a multiple of it."""


@dataclass(frozen=True)
class DeviceModel:
    """What a device's allocator takes for a request, and what operators hold out of sight."""

    kind: Literal["cpu", "cuda"]
    rounded: Callable[[int], int]
    hidden: Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], int]
    wraps_numbers: bool
    """Whether Python numbers become tensors in the device's memory."""
    constant_bytes: int = 0
    """What is held from the first matrix product on, for as long as the process lives."""


def _blocks(n_bytes: int) -> int:
    return -(-n_bytes // _CUDA_BLOCK_BYTES) * _CUDA_BLOCK_BYTES


CPU = DeviceModel("cpu", exactly, hidden_on_cpu, wraps_numbers=True)


def cuda(workspace_bytes: int) -> DeviceModel:
    """Describe a CUDA device whose cuBLAS takes a workspace of that size."""
    return DeviceModel("cuda", _blocks, hidden_on_cuda, False, workspace_bytes)
