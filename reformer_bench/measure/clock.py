"""StepClock: how long each phase of a step took, on the host's clock or the device's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from reformer_bench.spec.record import StepSample

_PHASES = ("forward", "backward", "optimizer")


class _Instants(Protocol):
    """Instants of one device and the time between two of them."""

    def now(self) -> Any: ...

    def settle(self) -> None: ...

    def between_ms(self, start: Any, end: Any) -> float: ...


class _HostInstants:
    """The host's performance counter."""

    def now(self) -> float:
        return time.perf_counter()

    def settle(self) -> None:
        """The host has done what it was told."""

    def between_ms(self, start: float, end: float) -> float:
        return (end - start) * 1e3


class _CudaInstants:
    """Events on the device's current stream: what the device did, without the host's lead."""

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

    ``with clock.phase("forward"): ...`` for each phase, then ``clock.finish()`` at the step's
    end: the only place where a CUDA device is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._instants: _Instants = (
            _CudaInstants(device) if device.type == "cuda" else _HostInstants()
        )
        self._intervals: list[_Interval] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts to that phase; a phase run twice counts both times.

        Raises ValueError for a name other than forward, backward, optimizer.
        """
        if name not in _PHASES:
            raise ValueError(f"{name!r} is not a phase of a step (allowed: {', '.join(_PHASES)})")
        start = self._instants.now()
        yield
        self._intervals.append(_Interval(name, start, self._instants.now()))

    def finish(self) -> StepSample:
        """The step's times in ms, and the clock is ready for the next one.

        The total runs from the first phase's start to the last one's end. RuntimeError without
        any phase.
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
