"""Chooses the kernel of chunked attention by name and device."""

from __future__ import annotations

import torch

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels.eager import EagerKernel
from reformer_bench.model.attention.kernels.flash_cpu import FlashCpuKernel
from reformer_bench.model.attention.kernels.rounds import ChunkKernel
from reformer_bench.model.attention.kernels.triton import (
    TritonKernel,
    why_not_fused,
    why_not_here,
)
from reformer_bench.schema.model import LshKernel


def why_not_triton(
    settings: AttentionSettings, device: torch.device, dtype: torch.dtype
) -> str | None:
    """Say why ``auto`` isn't Triton's programs on a CUDA device; None where it is, and on the CPU.

    On a device that is only predicted for they are taken to run.
    """
    if device.type != "cuda":
        return None
    not_fused = why_not_fused(settings, dtype)
    if not_fused is not None or not torch.cuda.is_available():
        return not_fused
    return why_not_here(device)


def chosen_kernel(
    settings: AttentionSettings, device: torch.device, dtype: torch.dtype
) -> tuple[LshKernel, ChunkKernel]:
    """Return the kernel of the settings' name, and for ``auto`` the device's default.

    Args:
        settings: A layer's; ``lsh_kernel`` is the name.
        device: Where the layer computes.
        dtype: What it computes in.

    Returns:
        The name, which is never ``auto``, and the kernel.

    Raises:
        ValueError: The kernel doesn't run on the device, in the dtype or with the settings.
    """
    name = settings.lsh_kernel
    not_fused = why_not_fused(settings, dtype)
    if name is LshKernel.AUTO:
        if device.type == "cpu":
            name = LshKernel.FLASH_CPU
        elif device.type == "cuda" and why_not_triton(settings, device, dtype) is None:
            name = LshKernel.TRITON
        else:
            name = LshKernel.EAGER
    if name is LshKernel.FLASH_CPU:
        if device.type != "cpu":
            raise ValueError(f"lsh_kernel = 'flash_cpu' runs on the CPU only, not on {device.type}")
        return name, FlashCpuKernel()
    if name is LshKernel.TRITON:
        if not_fused is not None:
            raise ValueError(f"lsh_kernel = 'triton' doesn't cover {not_fused}")
        return name, TritonKernel()
    return LshKernel.EAGER, EagerKernel()
