"""Predicted: what is known of a case before it runs, from its real code on fake tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reformer_bench.spec.record import AllocatorMemory, Memory


@dataclass(frozen=True)
class Predicted:
    """What was found out about one case; ``problem`` says why nothing was."""

    memory: AllocatorMemory | None = None
    flops: int | None = None
    problem: str | None = None
    places: dict[str, dict[str, int]] | None = None
    """Bytes at the peak, by part of the model and then by kind of memory."""

    @property
    def peak_bytes(self) -> int | None:
        """The allocator's peak."""
        return None if self.memory is None else self.memory.peak_allocated_bytes

    def added_to(self, memory: Memory) -> Memory:
        """A record's memory, with what was predicted for it."""
        return memory.model_copy(
            update={"predicted_peak_bytes": self.peak_bytes, "predicted_places": self.places}
        )


Predictions = Mapping[str, Predicted]
"""By case id."""
