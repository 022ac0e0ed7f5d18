"""CudaRecording: what torch's CUDA allocator held in each phase, and one more step traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.weak import TensorWeakRef

from reformer_bench.measure.allocator.profiler import AllocationTrace
from reformer_bench.measure.profile import Recording
from reformer_bench.measure.timeline import COLD, TRACED, WARM, LabelKind, Timeline, known_phase
from reformer_bench.schema.record import AllocatorMemory, Breakdown, Phase, PhasePeak


class CudaRecording(Recording):
    """The allocator's peaks in each phase, and a trace of one more step for the breakdown.

    It is made by ``record_cuda_allocations``. Peaks are the allocator's statistics, reset before
    each phase; they cost nothing, and count what was alive before the phase.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peaks: list[tuple[int, PhasePeak]] = []
        self._labelled: list[tuple[LabelKind, TensorWeakRef]] = []
        self._trace: AllocationTrace | None = None
        """While the traced step runs."""
        self.timeline: Timeline | None = None
        """The traced step's events, in the allocator's own block sizes, once it has run."""

    @contextmanager
    def phase(self, name: str, step: int = COLD) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold step.

        The allocator works in the order of the host, so that nothing is synchronised.
        """
        phase = known_phase(name)
        with nullcontext() if self._trace is None else self._trace.phase(name, step):
            torch.cuda.reset_peak_memory_stats(self._device)
            try:
                yield
            finally:
                peak = PhasePeak(
                    phase=phase,
                    allocated_bytes=torch.cuda.max_memory_allocated(self._device),
                    reserved_bytes=torch.cuda.max_memory_reserved(self._device),
                )
                self._peaks.append((step, peak))

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are; tensors on other devices are passed over.

        A label that was put before the trace counts in it for those tensors that are still alive
        then.
        """
        ours = [tensor for tensor in tensors if tensor.device == self._device]
        self._labelled += [(kind, TensorWeakRef(tensor)) for tensor in ours]
        if self._trace is not None:
            self._trace.label(kind, ours)

    @contextmanager
    def step(self, number: int, module: nn.Module) -> Iterator[None]:
        """Trace the step that is there for it, allocation by allocation, on top of the blocks that
        are in use before it.

        The trace costs time and host memory, and some versions of CUPTI stay attached after it: no
        other step is traced, and this one comes after those that are timed.
        """
        if number != TRACED:
            yield
            return
        trace = AllocationTrace(self._device)
        alive = [(kind, ref()) for kind, ref in self._labelled]
        before = allocated_blocks(torch.cuda.memory._snapshot(), self._device)
        trace.start()
        for kind, tensor in alive:
            if tensor is not None:
                trace.label(kind, [tensor])
        # A tensor that the step gives up must not be kept alive by its label.
        alive, tensor = [], None
        self._trace = trace
        try:
            yield
        finally:
            self._trace = None
            trace.stop(before)
            self.timeline = trace.timeline

    def allocator_memory(self) -> AllocatorMemory | None:
        """Return the record's part, with the breakdown of the traced step once it has run; None
        where the cold step has no phases.
        """
        cold = self._peaks_of(COLD)
        if not cold:
            return None
        breakdown, phase = self._breakdown()
        return AllocatorMemory(
            source="cuda-allocator",
            cold=cold,
            warm=self._peaks_of(WARM),
            breakdown=breakdown,
            breakdown_phase=phase,
        )

    def _peaks_of(self, step: int) -> tuple[PhasePeak, ...]:
        return tuple(peak for found, peak in self._peaks if found == step)

    def _breakdown(self) -> tuple[Breakdown | None, Phase | None]:
        """Return the breakdown, if the trace agrees with the warm step's statistics to the byte."""
        peak = None if self.timeline is None else self.timeline.peak_of_step(TRACED)
        if self.timeline is None or peak is None or peak.phase is None:
            return None, None
        if peak.allocated_bytes != max(part.allocated_bytes for part in self._peaks_of(WARM)):
            return None, None
        return self.timeline.breakdown(peak), known_phase(peak.phase)


def allocated_blocks(snapshot: dict[str, Any], device: torch.device) -> list[tuple[int, int]]:
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
