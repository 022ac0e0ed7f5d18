"""CudaRecording: what torch's CUDA allocator held in each phase, and one step of it traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.weak import TensorWeakRef

from reformer_bench.measure.allocator.profiler import MemoryProfile
from reformer_bench.measure.timeline import (
    Event,
    Label,
    LabelKind,
    PhaseInterval,
    Timeline,
    known_phase,
)
from reformer_bench.schema.record import AllocatorMemory, Breakdown, Phase, PhasePeak


class CudaRecording:
    """The same interface as a CPU recording, and a trace of one step for the breakdown.

    It is made by ``record_cuda_allocations``. Peaks are the allocator's statistics, reset before
    each phase; they cost nothing, and count what was alive before the phase.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peaks: list[tuple[int, PhasePeak]] = []
        self._labelled: list[tuple[LabelKind, TensorWeakRef]] = []
        self._trace: _Trace | None = None
        self._traced: tuple[Timeline, int] | None = None

    @contextmanager
    def phase(self, name: str, step: int = 0) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold
        step, 0.

        The allocator works in the order of the host, so that nothing is synchronised.
        """
        phase = known_phase(name)
        trace = self._trace
        start = trace.profile.mark() if trace else 0
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            yield
        finally:
            self._peaks.append((step, self._read(phase)))
            if trace:
                trace.phases.append((name, start, trace.profile.mark(), step))

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are; tensors on other devices are passed
        over.

        A label that was put before the trace counts in it for those tensors that are still alive
        then.
        """
        ours = [tensor for tensor in tensors if tensor.device == self._device]
        self._labelled += [(kind, TensorWeakRef(tensor)) for tensor in ours]
        if self._trace:
            self._trace.label(kind, ours)

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace the step that runs inside, allocation by allocation, for the breakdown.

        The trace costs time and host memory, so it should have a step of its own.
        """
        trace = _Trace(self._device)
        alive = [(kind, ref()) for kind, ref in self._labelled]
        trace.start()
        for kind, tensor in alive:
            if tensor is not None:
                trace.label(kind, [tensor])
        del alive
        self._trace = trace
        try:
            yield
        finally:
            self._trace = None
            timeline = trace.finish()
            if timeline.phases:
                self._traced = (timeline, timeline.phases[-1].step)

    @property
    def timeline(self) -> Timeline | None:
        """The traced step's events, in the allocator's own block sizes; None without a trace."""
        return self._traced[0] if self._traced else None

    def allocator_memory(
        self, cold_step: int = 0, warm_step: int | None = None
    ) -> AllocatorMemory | None:
        """Return the record's part, with the traced step's breakdown; None where the cold step has
        no phases.
        """
        cold = self._peaks_of(cold_step)
        if not cold:
            return None
        breakdown, phase = self._breakdown()
        return AllocatorMemory(
            source="cuda-allocator",
            cold=cold,
            warm=() if warm_step is None else self._peaks_of(warm_step),
            breakdown=breakdown,
            breakdown_phase=phase,
        )

    def _read(self, phase: Phase) -> PhasePeak:
        return PhasePeak(
            phase=phase,
            allocated_bytes=torch.cuda.max_memory_allocated(self._device),
            reserved_bytes=torch.cuda.max_memory_reserved(self._device),
        )

    def _peaks_of(self, step: int) -> tuple[PhasePeak, ...]:
        return tuple(peak for found, peak in self._peaks if found == step)

    def _breakdown(self) -> tuple[Breakdown | None, Phase | None]:
        """Return the traced step's breakdown, if the trace agrees with the statistics to
        the byte.
        """
        if self._traced is None:
            return None, None
        timeline, step = self._traced
        peak = timeline.peak_of_step(step)
        counted = max(part.allocated_bytes for part in self._peaks_of(step))
        if peak is None or peak.phase is None or peak.allocated_bytes != counted:
            return None, None
        return timeline.breakdown(peak), known_phase(peak.phase)


class _Trace:
    """The events of one step, on top of the blocks that were allocated when it began."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.profile = MemoryProfile(device)
        self.phases: list[tuple[str, int, int, int]] = []
        self._labels: list[tuple[LabelKind, int, int]] = []
        self._before: list[tuple[int, int]] = []

    def start(self) -> None:
        self._before = allocated_blocks(torch.cuda.memory._snapshot(), self._device)
        self.profile.start()

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        mark = self.profile.mark()
        self._labels += [(kind, mark, t.untyped_storage().data_ptr()) for t in tensors]

    def finish(self) -> Timeline:
        self.profile.stop()
        time_of = self.profile.time_of
        before: list[Event] = [(0, address, size) for address, size in self._before]
        return Timeline.from_events(
            before + self.profile.events,
            [PhaseInterval(name, time_of(a), time_of(b), step) for name, a, b, step in self.phases],
            [Label(kind, time_of(mark), address) for kind, mark, address in self._labels],
        )


def allocated_blocks(snapshot: dict, device: torch.device) -> list[tuple[int, int]]:
    """Return (address, bytes) of every block in use on a device, from an allocator snapshot."""
    return [
        (block["address"], block["size"])
        for segment in snapshot["segments"]
        if segment["device"] == device.index
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    ]


@contextmanager
def record_cuda_allocations(device: torch.device) -> Iterator[CudaRecording]:
    """Record while the block runs; ValueError for a device that is no CUDA device."""
    if device.type != "cuda":
        raise ValueError(f"expected a CUDA device, got {str(device)!r}")
    # The allocator's statistics refuse to be reset before the first use of the device.
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    yield CudaRecording(torch.device("cuda", index))
