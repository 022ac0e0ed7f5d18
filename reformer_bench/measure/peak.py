"""The peak of a block of code: the most memory that it had allocated at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from reformer_bench.measure.allocator.profiler import AllocationTrace
from reformer_bench.measure.fake.devices import device_model
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.timeline import Timeline
from reformer_bench.schema.case import device_kind

PeakMetric = Literal["allocated", "predicted"]

# A timeline tells what outlives a forward phase; here the whole block is one.
_BLOCK = "forward"


@dataclass(frozen=True)
class PeakReading:
    """The most bytes that a block of code had allocated at once, of what it allocated itself."""

    device: str
    """Where it was measured, ``cpu`` or ``cuda:N``; of a prediction, ``cpu`` or ``cuda``."""
    metric: PeakMetric
    peak_bytes: int
    kept_bytes: int
    """The part of the peak that was still alive when the block ended."""
    sizes_bytes: tuple[int, ...]
    """The size of each allocation alive at the peak, the largest first."""

    @property
    def temporary_bytes(self) -> int:
        """The part of the peak that was gone when the block ended."""
        return self.peak_bytes - self.kept_bytes


class PeakRecording:
    """Holds the reading of a block once it has ended."""

    def __init__(self) -> None:
        self._reading: PeakReading | None = None

    @property
    def reading(self) -> PeakReading:
        """What was measured, once the block has ended; RuntimeError while it still runs."""
        if self._reading is None:
            raise RuntimeError("the block has not ended: read its peak after it")
        return self._reading

    def finish(self, device: str, metric: PeakMetric, timeline: Timeline) -> None:
        """Work out the reading from the block's allocation events."""
        peak = timeline.peak()
        sizes = sorted((size for _, size, _ in timeline.alive_at(peak)), reverse=True)
        self._reading = PeakReading(
            device=device,
            metric=metric,
            peak_bytes=peak.allocated_bytes,
            kept_bytes=timeline.breakdown(peak).activations_bytes,
            sizes_bytes=tuple(sizes),
        )


@contextmanager
def record_peak(device: str = "auto", metric: PeakMetric = "allocated") -> Iterator[PeakRecording]:
    """Record the peak memory of the block of code that runs inside.

    Memory that was allocated before the block doesn't count, nor does the workspace that cuBLAS
    takes once in a process. Only what the calling thread and autograd's own threads allocate is
    seen.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a CUDA device if there is one. Of a
            prediction, ``auto`` is the CPU.
        metric: ``allocated`` counts what PyTorch's allocator gives out, to the byte (on CUDA in its
            blocks of 512 bytes). ``predicted`` runs the block on fake tensors, which hold neither
            memory nor values, and needs no device; every tensor has to be made inside the block.

    Yields:
        A recording whose ``reading`` is there once the block has ended, in bytes.

    Raises:
        ValueError: There is no device or no metric of that name; the text lists those there are.
        RuntimeError: The CUDA device isn't there, or a torch profiler runs already.
        NotPredictableError: The block needs the value of a tensor, which fake tensors don't have.
    """
    if metric not in get_args(PeakMetric):
        allowed = ", ".join(get_args(PeakMetric))
        raise ValueError(f"metric = {metric!r} is not a metric (allowed: {allowed})")
    recording = PeakRecording()
    where = _device(device, metric)
    # What nothing refers to any more is not to be freed in the middle of the block.
    gc.collect()
    with _predicted(where, recording) if metric == "predicted" else _measured(where, recording):
        yield recording


@contextmanager
def _measured(device: torch.device, recording: PeakRecording) -> Iterator[None]:
    trace = AllocationTrace(device)
    trace.start()
    try:
        with trace.phase(_BLOCK):
            yield
    finally:
        trace.stop()
        recording.finish(str(device), "allocated", trace.timeline)


@contextmanager
def _predicted(device: torch.device, recording: PeakRecording) -> Iterator[None]:
    model = device_model(device_kind(device.type))
    with record_fake_allocations(model) as found, found.phase(_BLOCK):
        yield
    recording.finish(device.type, "predicted", found.timeline)


def _device(name: str, metric: PeakMetric) -> torch.device:
    """Return the device of that name, with its index where it is to be measured on."""
    if name == "auto":
        name = "cuda" if metric == "allocated" and torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"device = {name!r} is not a device (allowed: auto, cpu, cuda, cuda:N)")
    device = torch.device(name)
    if device.type == "cpu" or metric == "predicted":
        return device
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device = {name!r}: torch {torch.__version__} sees no CUDA device here "
            "(metric = 'predicted' needs none)"
        )
    torch.cuda.init()
    return torch.device(
        "cuda", torch.cuda.current_device() if device.index is None else device.index
    )
