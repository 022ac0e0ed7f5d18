"""AllocationTrace reads the allocator events of one device, with phases and labels among them, from
torch's profiler.

The profiler is told to record user marks only, not operators: allocator events come regardless,
start-up takes under a millisecond instead of a second, and a step runs at its own speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._autograd import (
    _disable_profiler,
    _enable_profiler,
    _prepare_profiler,
    _profiler_enabled,
)
from torch._C._profiler import (
    ProfilerActivity,
    ProfilerConfig,
    ProfilerState,
    RecordScope,
    _EventType,
    _ExperimentalConfig,
    _ProfilerEvent,
)
from torch.autograd.profiler import record_function

from reformer_bench.measure.timeline import (
    COLD,
    Event,
    LabelKind,
    PhaseInterval,
    StorageLabel,
    Timeline,
)

_MARK = "reformer_bench.mark."


class AllocationTrace:
    """Records the allocator events of a device, by type and index, from start to stop.

    It sees what the calling thread does, inside operators too, and what autograd's threads do for
    it. It doesn't see what other Python threads allocate, nor memory that doesn't come from torch's
    allocator. Stopping takes about 10 µs and, while it lasts, 2 KiB of host memory for each event.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._n_marks = 0
        self._phases: list[tuple[str, int, int, int]] = []
        self._labels: list[tuple[LabelKind, int, int]] = []
        self._timeline: Timeline | None = None

    def start(self) -> None:
        """Begin to record; RuntimeError where a profiler runs already, which would take our
        events.
        """
        if _profiler_enabled():
            raise RuntimeError("a torch profiler or another recording runs already in this thread")
        # The profiler's library otherwise writes its own progress to stderr; it reads this once.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        config = ProfilerConfig(
            ProfilerState.KINETO,
            False,  # report_input_shapes
            True,  # profile_memory
            False,  # with_stack
            False,  # with_flops
            False,  # with_modules
            _ExperimentalConfig(),
        )
        activities = {ProfilerActivity.CPU}
        _prepare_profiler(config, activities)
        _enable_profiler(config, activities, {RecordScope.USER_SCOPE})  # type: ignore[call-arg]

    @contextmanager
    def phase(self, name: str, step: int = COLD) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold step."""
        start = self._mark()
        try:
            yield
        finally:
            self._phases.append((name, start, self._mark(), step))

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are, for as long as each lives; tensors on other
        devices are passed over.
        """
        mark = self._mark()
        ours = (tensor for tensor in tensors if self._is_ours(tensor.device))
        self._labels += [(kind, mark, tensor.untyped_storage().data_ptr()) for tensor in ours]

    def stop(self, before: Iterable[tuple[int, int]] = ()) -> None:
        """End the recording; after this ``timeline`` is there.

        ``before`` are address and bytes of what was allocated already when it began.
        """
        events: list[Event] = []
        time_of: dict[int, int] = {}
        for event in _walk(_disable_profiler().experimental_event_tree()):
            if event.tag == _EventType.Allocation:
                found: Any = event.extra_fields
                if self._is_ours(found.device):
                    events.append((event.start_time_ns, found.ptr, found.alloc_size))
            elif event.name.startswith(_MARK):
                time_of[int(event.name.removeprefix(_MARK))] = event.start_time_ns
        self._timeline = Timeline.from_events(
            [(0, address, size) for address, size in before] + events,
            [
                PhaseInterval(name, time_of[a], time_of[b], step)
                for name, a, b, step in self._phases
            ],
            [StorageLabel(kind, time_of[mark], address) for kind, mark, address in self._labels],
        )

    @property
    def timeline(self) -> Timeline:
        """The events, phases and labels; RuntimeError while the recording still runs."""
        if self._timeline is None:
            raise RuntimeError("the recording has not ended: read its timeline after the block")
        return self._timeline

    def _mark(self) -> int:
        """Put a mark between the events so far and those to come, and return its number."""
        self._n_marks += 1
        # On the profiler's own clock: no other clock compares with its events exactly.
        with record_function(f"{_MARK}{self._n_marks}"):
            pass
        return self._n_marks

    def _is_ours(self, device: torch.device) -> bool:
        if device.type != self._device.type:
            return False
        return device.type == "cpu" or device.index == self._device.index


def _walk(roots: list[_ProfilerEvent]) -> Iterator[_ProfilerEvent]:
    """Yield every event of a tree, each before its children, in the order recorded."""
    stack = list(reversed(roots))
    while stack:
        event = stack.pop()
        yield event
        if event.tag != _EventType.Allocation:
            stack.extend(reversed(event.children))
