"""A case's memory, predicted and measured, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from reformer_bench.schema.case import Case
from reformer_bench.schema.record import AllocatorMemory


@dataclass(frozen=True)
class Comparison:
    """A case, predicted and measured on the CPU's allocator."""

    case: Case
    predicted: AllocatorMemory
    measured: AllocatorMemory
    length_name: str = "tokens"
    """What the case's length counts."""

    @property
    def error_bytes(self) -> int:
        """The predicted peak less the measured one."""
        return self.predicted.peak_allocated_bytes - self.measured.peak_allocated_bytes

    @property
    def error(self) -> float:
        """The error as a share of the measured peak, without its sign."""
        return abs(self.error_bytes) / self.measured.peak_allocated_bytes
