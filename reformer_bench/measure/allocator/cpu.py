"""CpuRecording: every allocation of torch's CPU allocator over several steps, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from reformer_bench.measure.allocator.profiler import MemoryProfile
from reformer_bench.measure.timeline import (
    Label,
    LabelKind,
    PhaseInterval,
    Timeline,
    allocator_memory,
)
from reformer_bench.schema.record import AllocatorMemory


class CpuRecording:
    """What PyTorch's CPU allocator did in several steps, with the phases and labels put
    meanwhile.

    It is made by ``record_cpu_allocations``. Bytes are those asked of the allocator, without the C
    library's own rounding; memory that was alive before the recording isn't in it.
    """

    def __init__(self) -> None:
        self._profile = MemoryProfile(torch.device("cpu"))
        self._phases: list[tuple[str, int, int, int]] = []
        self._labels: list[tuple[LabelKind, int, int]] = []
        self._timeline: Timeline | None = None

    @contextmanager
    def phase(self, name: str, step: int = 0) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold
        step, 0.
        """
        start = self._profile.mark()
        try:
            yield
        finally:
            self._phases.append((name, start, self._profile.mark(), step))

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are, for as long as each lives; tensors on other
        devices are passed over.
        """
        mark = self._profile.mark()
        for tensor in tensors:
            if tensor.device.type == "cpu":
                self._labels.append((kind, mark, tensor.untyped_storage().data_ptr()))

    def finish(self) -> None:
        """End the recording; after this ``timeline`` is there."""
        self._profile.stop()
        time_of = self._profile.time_of
        self._timeline = Timeline.from_events(
            self._profile.events,
            [
                PhaseInterval(name, time_of(start), time_of(end), step)
                for name, start, end, step in self._phases
            ],
            [Label(kind, time_of(mark), address) for kind, mark, address in self._labels],
        )

    @property
    def timeline(self) -> Timeline:
        """The events, phases and labels; RuntimeError while the recording still runs."""
        if self._timeline is None:
            raise RuntimeError("the recording has not ended: read its timeline after the block")
        return self._timeline

    def allocator_memory(
        self, cold_step: int = 0, warm_step: int | None = None
    ) -> AllocatorMemory | None:
        """Return the record's part, with the breakdown at the warm step's peak (the cold one's
        without a warm step); None where the cold step has no phases.
        """
        return allocator_memory(self.timeline, "cpu-allocator-events", cold_step, warm_step)

    def start(self) -> None:
        """Begins the recording."""
        self._profile.start()


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
        recording.finish()
