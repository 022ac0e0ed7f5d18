"""A prediction is what a step will take, worked out without running it; or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict

from reformer_bench.schema.explanation import Explanation
from reformer_bench.schema.phases import PHASES as PHASES
from reformer_bench.schema.phases import Phase as Phase
from reformer_bench.schema.record import AllocatorMemory, Breakdown, Memory, PhasePeak


@dataclass(frozen=True)
class Prediction:
    """What a step will take on a device, worked out without that device."""

    # Kept predictions may have fields of another version.
    __pydantic_config__: ClassVar = ConfigDict(extra="ignore")

    memory: AllocatorMemory
    """The peaks of each phase, in bytes: of the first step (cold) and of a later one (warm)."""
    flops: int
    """How many FLOPs the matrix products and attention kernels of one step take."""
    places: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is alive at the later step's peak, in bytes, by part of the model (a module's name) and
    then by kind of memory."""
    notes: tuple[str, ...] = ()
    """What was taken for granted, or is not predicted, a sentence each."""
    explanation: Explanation | None = None
    """What is alive at the highest peak, where that was asked for."""
    launches: int = 0
    """How many programs a step starts on a CUDA device, at least; 0 for the CPU."""
    moved_bytes: int = 0
    """The bytes that those read from the device's memory and write to it, each tensor once a
    program; 0 for the CPU."""

    @property
    def peak_bytes(self) -> int:
        """The highest number of bytes that the allocator has given out at once."""
        return self.memory.peak_allocated_bytes

    @property
    def phases(self) -> tuple[PhasePeak, ...]:
        """The peak of each phase of the later step."""
        return self.memory.warm

    @property
    def breakdown(self) -> Breakdown:
        """What the peak is made of, in bytes: parameters, gradients, optimizer state and so on."""
        assert self.memory.breakdown is not None
        return self.memory.breakdown

    def added_to(self, memory: Memory) -> Memory:
        """Return a record's memory with what was predicted for it."""
        explanation = self.explanation
        return memory.model_copy(
            update={
                "predicted_peak_bytes": self.peak_bytes,
                "predicted_places": self.places,
                "predicted_notes": self.notes,
                "predicted_explanation": None if explanation is None else explanation.kept(),
            }
        )


@dataclass(frozen=True)
class NotPredicted:
    """Stands where a case's prediction would, and says why there is none."""

    problem: str
    peak_bytes: ClassVar[None] = None
    flops: ClassVar[None] = None

    def added_to(self, memory: Memory) -> Memory:
        """Return a record's memory as it is."""
        return memory


Predictions = Mapping[str, Prediction | NotPredicted]
"""By case id."""
