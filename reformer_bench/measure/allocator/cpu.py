"""CpuRecording: every allocation of torch's CPU allocator over several steps, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reformer_bench.measure.allocator.profiler import AllocationTrace
from reformer_bench.measure.profile import Recording
from reformer_bench.schema.record import AllocatorMemory


class CpuRecording(AllocationTrace, Recording):
    """What PyTorch's CPU allocator did in several steps, with their phases and labels.

    It is made by ``record_cpu_allocations``. Bytes are those asked of the allocator, without the C
    library's own rounding; memory that was alive before the recording isn't in it.
    """

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def allocator_memory(self) -> AllocatorMemory | None:
        """Return the record's part, with the breakdown at the warm step's peak (the cold one's
        without a warm step); None where the cold step has no phases.
        """
        return self.timeline.memory("cpu-allocator-events")


@contextmanager
def record_cpu_allocations() -> Iterator[CpuRecording]:
    """Record while the block runs, and keep what there is even where the block raises.

    Ending the recording needs about 2 KiB of host memory and 10 µs for each event: read the
    process's high-water mark, and lift any memory limit, before the block ends.
    """
    recording = CpuRecording()
    recording.start()
    try:
        yield recording
    finally:
        recording.stop()
