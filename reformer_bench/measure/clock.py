"""StepClock measures how long each phase of a step took, by the host's clock or the device's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reformer_bench.schema.record import StepSample

_PHASES = ("forward", "backward", "optimizer")


class StepClock:
    """Times the phases of one step after another.

    A step enters ``with clock.phase("forward"):`` for each phase, and calls ``clock.finish()`` at
    its end, the only place where a CUDA device is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._intervals: list[tuple[str, Any, Any]] = []
        """Name, start and end of each phase, in instants of the device."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside to a phase; a phase that runs twice counts both times.

        Raises ValueError for a name other than forward, backward and optimizer.
        """
        if name not in _PHASES:
            raise ValueError(f"{name!r} is not a phase of a step (allowed: {', '.join(_PHASES)})")
        start = self._now()
        yield
        self._intervals.append((name, start, self._now()))

    def finish(self) -> StepSample:
        """Return the step's times in ms, and make the clock ready for the next step.

        The total runs from the start of the first phase to the end of the last. RuntimeError is
        raised when there was no phase.
        """
        if not self._intervals:
            raise RuntimeError("a step without phases has no time")
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        intervals, self._intervals = self._intervals, []
        times: dict[str, float] = {}
        for name, start, end in intervals:
            times[name] = times.get(name, 0.0) + self._between_ms(start, end)
        return StepSample(
            total_ms=self._between_ms(intervals[0][1], intervals[-1][2]),
            forward_ms=times.get("forward"),
            backward_ms=times.get("backward"),
            optimizer_ms=times.get("optimizer"),
        )

    def _now(self) -> Any:
        """Return the host's time in s, or an event on the device's stream, which tells when the
        device has done its work.
        """
        if self._device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between_ms(self, start: Any, end: Any) -> float:
        if self._device.type == "cuda":
            return float(start.elapsed_time(end))
        return float(end - start) * 1e3
