"""StepClock measures how long each phase of a step took, by the host's clock or the device's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from reformer_bench.schema.record import StepSample

_PHASES = ("forward", "backward", "optimizer")


class _Instants(Protocol):
    """Instants of one device, and the time between two of them."""

    def now(self) -> Any: ...

    def settle(self) -> None: ...

    def between_ms(self, start: Any, end: Any) -> float: ...


class _HostInstants:
    """Instants of the host's performance counter."""

    def now(self) -> float:
        return time.perf_counter()

    def settle(self) -> None:
        """The host has done what it was told."""

    def between_ms(self, start: float, end: float) -> float:
        return (end - start) * 1e3


class _CudaInstants:
    """Events on the device's current stream, which tell when the device did its work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def settle(self) -> None:
        torch.cuda.synchronize(self._device)

    def between_ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end)


@dataclass(frozen=True)
class _Interval:
    phase: str
    start: Any
    end: Any


class StepClock:
    """Times the phases of one step after another.

    A step enters ``with clock.phase("forward"):`` for each phase, and calls ``clock.finish()`` at
    its end, the only place where a CUDA device is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._instants: _Instants = (
            _CudaInstants(device) if device.type == "cuda" else _HostInstants()
        )
        self._intervals: list[_Interval] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside to a phase; a phase that runs twice counts both times.

        Raises ValueError for a name other than forward, backward and optimizer.
        """
        if name not in _PHASES:
            raise ValueError(f"{name!r} is not a phase of a step (allowed: {', '.join(_PHASES)})")
        start = self._instants.now()
        yield
        self._intervals.append(_Interval(name, start, self._instants.now()))

    def finish(self) -> StepSample:
        """Return the step's times in ms, and make the clock ready for the next step.

        The total runs from the start of the first phase to the end of the last. RuntimeError is
        raised when there was no phase.
        """
        if not self._intervals:
            raise RuntimeError("a step without phases has no time")
        self._instants.settle()
        intervals, self._intervals = self._intervals, []
        between = self._instants.between_ms
        times: dict[str, float] = {}
        for interval in intervals:
            took = between(interval.start, interval.end)
            times[interval.phase] = times.get(interval.phase, 0.0) + took
        return StepSample(
            total_ms=between(intervals[0].start, intervals[-1].end),
            forward_ms=times.get("forward"),
            backward_ms=times.get("backward"),
            optimizer_ms=times.get("optimizer"),
        )
