"""What an order to measure is, and what turns orders into records, here or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Environment, Record

COUNTED_STEP_MS = 2000.0
"""Counting operations runs one more step; a step longer than this is not repeated for it."""

# Warm-up beyond the probed steps: as long as it stays a small part of the sampling time.
_WARMUP_SHARE = 0.25
_MOST_WARMUP_STEPS = 3


def n_warmup_steps(sample_time_s: float, step_ms: float) -> int:
    """Steps between the probed ones and the timed ones; a slow workload needs none."""
    share_ms = sample_time_s * 1e3 * _WARMUP_SHARE
    return min(_MOST_WARMUP_STEPS, int(share_ms / max(step_ms, 1e-3)))


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


class Executor(Protocol):
    """What runs cases."""

    takes_all: bool
    """Whether it gets every order at once; else one after another, so that orders may depend on
    the records before them."""

    def describe(self, device: str) -> Description:
        """Say what ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` is where the cases will run.

        Raises InputError where there is no such device.
        """

    def run(self, orders: Sequence[WorkOrder]) -> Iterator[Record]:
        """Yield a record for every order, as they end."""

    def close(self) -> None:
        """End what still runs."""
