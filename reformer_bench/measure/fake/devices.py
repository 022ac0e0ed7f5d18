"""DeviceModel describes how a kind of device allocates, as far as that is known without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from reformer_bench.measure.fake.operators_cpu import internal_bytes_on_cpu
from reformer_bench.measure.fake.operators_cuda import internal_bytes_on_cuda
from reformer_bench.schema.case import DeviceKind
from reformer_bench.schema.devices import CUBLAS_WORKSPACE_BYTES

HOST = torch.device("cpu", 0)
"""The host's memory, where the device is a fake CUDA one: to torch another device than ``cpu``,
which stands for the GPU's memory, so that what comes of a tensor there is there too, and an
operator on tensors of both is an error. Its tensors are not recorded."""

_CUDA_BLOCK_BYTES = 512
"""kMinBlockSize of CUDACachingAllocator: every allocation is a multiple of it."""


@dataclass(frozen=True)
class DeviceModel:
    """What a device's allocator takes for a request, and what operators hold inside."""

    kind: DeviceKind
    taken_bytes: Callable[[int], int]
    """From the bytes asked of the allocator to the bytes that it takes."""
    internal_bytes: Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], int]
    """From an operator, its result and its arguments to the most bytes that it holds besides."""
    scalars_take_memory: bool
    """Whether Python numbers become tensors in the device's memory."""
    constant_bytes: int = 0
    """What is held from the first matrix product on, for as long as the process lives."""


def _exactly(n_bytes: int) -> int:
    return n_bytes


def _in_blocks(n_bytes: int) -> int:
    return -(-n_bytes // _CUDA_BLOCK_BYTES) * _CUDA_BLOCK_BYTES


CPU = DeviceModel("cpu", _exactly, internal_bytes_on_cpu, scalars_take_memory=True)


def device_model(kind: DeviceKind, workspace_bytes: int = CUBLAS_WORKSPACE_BYTES) -> DeviceModel:
    """Describe the CPU, or a CUDA device whose cuBLAS takes a workspace of that size."""
    if kind == "cpu":
        return CPU
    return DeviceModel("cuda", _in_blocks, internal_bytes_on_cuda, False, workspace_bytes)
