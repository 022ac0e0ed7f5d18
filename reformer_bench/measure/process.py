"""The host memory of the process: its resident set, the high-water mark, a limit, and
running out.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Literal

import psutil
import torch

from reformer_bench.spec.record import HostMemory

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_PERIOD_S = 0.01

OutOfMemory = Literal["device-oom", "host-oom"]

_HOST_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "Cannot allocate memory",
)
_DEVICE_WORDS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

HighWaterSource = Literal["vmhwm", "sampled"]
"""``vmhwm``: the kernel's mark, exact. ``sampled``: by a thread, every 10 ms, and from getrusage
where the mark of the process's whole life rose."""


def resident_bytes() -> int:
    """Return the process's resident set now."""
    return int(psutil.Process().memory_info().rss)


def _status_bytes(field: str) -> int | None:
    """Return a size of /proc/self/status; None where there is no such file or line."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


class HighWaterMark:
    """Measures the highest resident set between start and stop."""

    def __init__(self) -> None:
        self.source: HighWaterSource = "vmhwm"
        self._before = 0
        self._sampled = 0
        self._lifetime_before = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Reset the kernel's mark, or begin to sample where it can't be reset."""
        self._before = resident_bytes()
        if _reset_kernel_mark():
            return
        self.source = "sampled"
        self._sampled = self._before
        self._lifetime_before = _lifetime_peak_bytes()
        self._thread = threading.Thread(target=self._run, name="rss-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> HostMemory:
        """Return the resident set before the start, and its peak since."""
        if self.source == "vmhwm":
            # The mark may lag behind the set by the kernel's batching of counts.
            peak = max(_status_bytes("VmHWM") or 0, resident_bytes())
        else:
            self._stopping.set()
            if self._thread is not None:
                self._thread.join()
            peak = max(self._sampled, resident_bytes())
            lifetime = _lifetime_peak_bytes()
            peak = max(peak, lifetime) if lifetime > self._lifetime_before else peak
        return HostMemory(before_bytes=self._before, peak_bytes=max(peak, self._before))

    def _run(self) -> None:
        while not self._stopping.wait(_SAMPLE_PERIOD_S):
            self._sampled = max(self._sampled, resident_bytes())


def _reset_kernel_mark() -> bool:
    """Set VmHWM back to the resident set, as proc(5) has it; False where that can't be done."""
    if _status_bytes("VmHWM") is None:
        return False
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _lifetime_peak_bytes() -> int:
    """Return the highest resident set of the process's life, from getrusage; 0 where
    there is none.
    """
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def limit_data_segment(budget_bytes: int) -> int:
    """Let the process allocate only so much more, so that an allocation over budget fails
    cleanly.

    It sets RLIMIT_DATA to the private writable memory that the process has (VmData) and the budget
    on top, and returns it. Threads' stacks count, 8 MiB each: start worker threads first. It works
    on Linux only (OSError elsewhere). ValueError is raised for a negative budget.
    """
    if budget_bytes < 0:
        raise ValueError(f"expected a budget of 0 bytes or more, got {budget_bytes}")
    held = _status_bytes("VmData")
    if held is None:
        raise OSError("a memory budget on the CPU needs Linux: /proc/self/status has no VmData")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = held + budget_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def lift_data_segment_limit() -> None:
    """Take the limit away again, as far as the system lets the process."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_out_of_memory(
    exception: BaseException, device_kind: Literal["cpu", "cuda"]
) -> OutOfMemory | None:
    """Say whose memory ran out, the device's or the host's; None where it is another
    error.

    An exception raised from another (``raise … from``) is what its cause is. On the CPU the
    device's memory is the host's, so that every shortage there is ``host-oom``.
    """
    current: BaseException | None = exception
    while current is not None:
        found = _one(current)
        if found is not None:
            return "host-oom" if device_kind == "cpu" else found
        current = current.__cause__
    return None


def _one(exception: BaseException) -> OutOfMemory | None:
    if isinstance(exception, torch.OutOfMemoryError):
        return "device-oom"
    if isinstance(exception, MemoryError):
        return "host-oom"
    if isinstance(exception, (RuntimeError, OSError)):
        text = str(exception)
        if any(words in text for words in _HOST_WORDS):
            return "host-oom"
        if any(words in text for words in _DEVICE_WORDS):
            return "device-oom"
    return None
