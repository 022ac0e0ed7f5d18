"""WorkOrder tells a worker everything it needs to know to measure one case."""

from __future__ import annotations

from dataclasses import dataclass

from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Environment


@dataclass(frozen=True)
class WorkOrder:
    """A case, and the limits that it is measured under."""

    case: Case
    environment: Environment | None
    """What the record will say of the machine; None where the worker describes where it runs."""
    timeout_s: float
    """After this many seconds the worker is killed."""
    timeout_reason: str
    """Which limit that is, in words."""
    min_samples: int
    max_samples: int
    sample_time_s: float
    memory_budget_bytes: int | None = None
    """What torch's allocator may hand out to the case; None: what the device has."""


@dataclass(frozen=True)
class Description:
    """A device as a worker found it."""

    device: str
    """One of ``cpu``, ``cuda`` and ``cuda:N``, never ``auto``."""
    environment: Environment
