"""Memory limits of a worker, enforced so that what exceeds them fails cleanly."""

from __future__ import annotations

import resource
from dataclasses import dataclass

import psutil
import torch

from reformer_bench.measure.host import (
    available_bytes,
    lift_data_segment_limit,
    limit_data_segment,
)
from reformer_bench.schema.units import format_bytes

# What a process needs besides the bytes that torch's allocator hands out, and RLIMIT_DATA counts:
# what the C library keeps when something is freed, the profiler's own events, buffers of matrix
# products. Measured from 33 MiB (a reformer of 4K tokens) to 104 MiB (16K tokens) with a peak of
# 60 and 138 MiB, and 0.5 GiB at a million tokens and 9.8 GiB.
_ROOM_BYTES = 256 * 2**20
_ROOM_SHARE = 1 / 16
# Leaves room for the caller, and for what the kernel itself needs to serve the case.
_SHARE_OF_FREE_MEMORY = 0.95


@dataclass(frozen=True)
class MemoryLimit:
    """A limit that is in force."""

    n_bytes: int | None
    """None where nothing but the device itself limits the case."""
    why: str
    """What sets the limit, in words for messages."""
    data_segment_bytes: int | None = None
    """RLIMIT_DATA as it was set; None where it was not."""


def impose(device: torch.device, budget_bytes: int | None) -> MemoryLimit:
    """Limit what this process takes on a device from now on; on CUDA this initialises the device.

    A budget is meant for the bytes of torch's allocator. On the CPU the process gets room for what
    it needs besides, so ``exceeded`` has to be asked afterwards. With or without a budget, a case
    on the CPU is held to what the machine has free: beyond that the kernel would end some process,
    perhaps not this one.
    """
    if device.type == "cuda":
        if budget_bytes is None:
            return MemoryLimit(None, "the device's memory")
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_bytes / total), device)
        return MemoryLimit(budget_bytes, _budget_words(budget_bytes))
    _start_threads()
    free = int(_SHARE_OF_FREE_MEMORY * free_bytes())
    if budget_bytes is not None:
        most = budget_bytes + _ROOM_BYTES + int(_ROOM_SHARE * budget_bytes)
        if most <= free:
            return MemoryLimit(budget_bytes, _budget_words(budget_bytes), limit_data_segment(most))
    why = f"the machine's {format_bytes(free)} of free memory"
    return MemoryLimit(free, why, limit_data_segment(free))


def free_bytes() -> int:
    """Return what the machine, and the control group that this process is in, have free."""
    free = int(psutil.virtual_memory().available)
    of_group = available_bytes()
    return free if of_group is None else min(free, of_group)


def exceeded(budget_bytes: int | None, peak_bytes: int | None) -> str | None:
    """Say why an allocator's peak is not within a budget; None where it is."""
    if budget_bytes is None or peak_bytes is None or peak_bytes <= budget_bytes:
        return None
    return f"allocated {format_bytes(peak_bytes)}, more than {_budget_words(budget_bytes)}"


def _budget_words(budget_bytes: int) -> str:
    return f"the memory budget of {format_bytes(budget_bytes)}"


def lift(limit: MemoryLimit | None) -> None:
    """Take a CPU case's limit away, so that its record can be made."""
    if limit is not None and limit.data_segment_bytes is not None:
        lift_data_segment_limit()


def restore(limit: MemoryLimit | None) -> None:
    """Put a lifted limit back as it was."""
    if limit is not None and limit.data_segment_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit.data_segment_bytes, hard))


def _start_threads() -> None:
    # A thread that can't have its stack under the limit ends the process instead of the case.
    a = torch.ones(256, 256)
    torch.mm(a, a)
    torch.ones(2**20).add_(1.0)
