"""Timeline: what an allocator did and when, with the peaks and the breakdown that follow from it.

Nothing here knows where the events come from: torch's profiler or fake tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from reformer_bench.schema.record import PHASES, AllocatorMemory, Breakdown, Phase, PhasePeak

IntArray = npt.NDArray[np.int64]
LabelKind = Literal["parameters", "gradients", "optimizer"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
Source = Literal["cuda-allocator", "cpu-allocator-events", "fake-tensor"]
COLD, WARM, TRACED = 0, 1, 2
"""The numbers of the profiled steps: the first of a process, to which the build counts; a later
one, in which gradients and optimizer state already have their places; and on CUDA, after everything
that is timed, one more whose every allocation is traced."""
Event = tuple[int, int, int]
"""The time in ns, the address, and the bytes, which are negative when freed."""


@dataclass(frozen=True)
class PhaseInterval:
    """One run of a phase: the events with start_ns ≤ time < end_ns."""

    name: str
    start_ns: int
    end_ns: int
    step: int = COLD


@dataclass(frozen=True)
class StorageLabel:
    """Says what the allocation at an address is, as things stand after every event ≤ time_ns."""

    kind: LabelKind
    time_ns: int
    address: int


@dataclass(frozen=True)
class Peak:
    """The most bytes alive in a stretch of time, and the state in which they are."""

    allocated_bytes: int
    event: int
    """The last event before that state; −1 stands for before all events."""
    phase: str | None = None


@dataclass(frozen=True)
class _Allocations:
    """Every allocation of a timeline: when it was born, when it died, how large it was.

    Sorted by address, then by birth. Births and deaths are event indices; what never dies has
    the number of events as its death.
    """

    address: IntArray
    birth: IntArray
    death: IntArray
    size: IntArray

    def alive_at(self, event: int) -> npt.NDArray[np.bool_]:
        """Say which allocations are alive right after an event."""
        return (self.birth <= event) & (event < self.death)

    def find(self, address: int, event: int) -> int | None:
        """Return the allocation at an address that is alive right after an event."""
        low, high = np.searchsorted(self.address, [address, address + 1])
        place = low + np.searchsorted(self.birth[low:high], event, side="right") - 1
        return int(place) if place >= low and event < self.death[place] else None


@dataclass(frozen=True, eq=False)
class Timeline:
    """Allocation events in order of time, with phases and labels on the same clock.

    An address may come back any number of times. Freeing an address that isn't live is ignored:
    it was allocated before the timeline began. Allocating one that is live ends what was there:
    its release went unseen.
    """

    time_ns: IntArray
    address: IntArray
    delta_bytes: IntArray
    phases: tuple[PhaseInterval, ...] = ()
    labels: tuple[StorageLabel, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.time_ns), len(self.address), len(self.delta_bytes)}
        if len(lengths) != 1:
            raise ValueError(f"a timeline's columns must be equally long, got {sorted(lengths)}")
        if np.any(np.diff(self.time_ns) < 0):
            raise ValueError("a timeline's events must be in order of time")

    @classmethod
    def from_events(
        cls,
        events: Iterable[Event],
        phases: Iterable[PhaseInterval] = (),
        labels: Iterable[StorageLabel] = (),
    ) -> Timeline:
        """Make a timeline of events in any order; those of one instant keep theirs."""
        table = np.array(list(events), dtype=np.int64).reshape(-1, 3)
        table = table[np.argsort(table[:, 0], kind="stable")]
        return cls(table[:, 0], table[:, 1], table[:, 2], tuple(phases), tuple(labels))

    def peak(self) -> Peak:
        """Return the most bytes alive in the whole timeline, outside phases too."""
        return self._highest(0, len(self.time_ns))

    def peak_of(self, interval: PhaseInterval) -> Peak:
        """Return the most bytes alive while a phase ran, counting what was alive before it."""
        return self._highest(*self._span(interval), phase=interval.name)

    def peak_of_step(self, step: int) -> Peak | None:
        """Return the highest peak of any phase of a step, the first of equals; None without one."""
        peaks = [self.peak_of(interval) for interval in self.phases if interval.step == step]
        return max(peaks, key=lambda peak: peak.allocated_bytes, default=None)

    def phase_peaks(self, step: int) -> tuple[PhasePeak, ...]:
        """Return the peak of each phase of a step, in the order they began; a repeated phase counts
        once, with its highest peak. ValueError is raised for a phase that records don't know.
        """
        highest: dict[str, int] = {}
        for interval in self.phases:
            if interval.step == step:
                found = self.peak_of(interval).allocated_bytes
                highest[interval.name] = max(found, highest.get(interval.name, 0))
        return tuple(
            PhasePeak(phase=known_phase(name), allocated_bytes=count)
            for name, count in highest.items()
        )

    def breakdown(self, peak: Peak) -> Breakdown:
        """Return what the bytes alive at a peak are; the five parts add up to it exactly.

        An allocation labelled more than once is what its first label says.
        """
        allocations = self._allocations
        alive = allocations.alive_at(peak.event)
        parts: dict[str, int] = {}
        for number, kind in enumerate(LABEL_KINDS):
            parts[kind] = int(allocations.size[alive & (self._label_numbers == number)].sum())
        kept = alive & self._outlive_forward & (self._label_numbers < 0)
        activations = int(allocations.size[kept].sum())
        return Breakdown(
            parameters_bytes=parts["parameters"],
            gradients_bytes=parts["gradients"],
            optimizer_bytes=parts["optimizer"],
            activations_bytes=activations,
            temporaries_bytes=peak.allocated_bytes - sum(parts.values()) - activations,
        )

    def memory(self, source: Source) -> AllocatorMemory | None:
        """Return what a record keeps: the peaks of the cold and the warm step's phases, and the
        breakdown at the warm step's peak (the cold one's where the warm step has no phases).

        It is None where the cold step has no phases.
        """
        cold, warm = self.phase_peaks(COLD), self.phase_peaks(WARM)
        peak = self.peak_of_step(WARM if warm else COLD)
        if not cold or peak is None or peak.phase is None:
            return None
        return AllocatorMemory(
            source=source,
            cold=cold,
            warm=warm,
            breakdown=self.breakdown(peak),
            breakdown_phase=known_phase(peak.phase),
        )

    def alive_at(self, peak: Peak) -> list[tuple[int, int, str]]:
        """Return (address, bytes, kind) of each allocation alive at a peak, with kinds as in
        breakdowns.
        """
        allocations = self._allocations
        alive = allocations.alive_at(peak.event)
        columns = (allocations.address[alive], allocations.size[alive], self._kinds[alive])
        return [(int(a), int(size), str(kind)) for a, size, kind in zip(*columns, strict=True)]

    def kinds_by_birth(self) -> dict[int, str]:
        """Return the kind of each allocation, as in breakdowns, by the event that made it."""
        births = self._allocations.birth.tolist()
        return dict(zip(births, map(str, self._kinds), strict=True))

    @cached_property
    def live_bytes(self) -> IntArray:
        """Bytes alive right after each event, [events]."""
        change = np.zeros(len(self.time_ns), dtype=np.int64)
        allocations = self._allocations
        change[allocations.birth] += allocations.size
        # No event ends two allocations, so plain fancy indexing loses nothing.
        ended = allocations.death < len(change)
        change[allocations.death[ended]] -= allocations.size[ended]
        return np.cumsum(change)

    @cached_property
    def _allocations(self) -> _Allocations:
        """Pairs each allocation with the next event at its address, whatever that is."""
        n_events = len(self.time_ns)
        order = np.argsort(self.address, kind="stable")
        order = order[self.delta_bytes[order] != 0]
        address, delta = self.address[order], self.delta_bytes[order]
        death = np.full(len(order), n_events, dtype=np.int64)
        again = address[1:] == address[:-1]
        death[:-1][again] = order[1:][again]
        born = delta > 0
        return _Allocations(address[born], order[born], death[born], delta[born])

    @cached_property
    def _label_numbers(self) -> IntArray:
        """The label of each allocation as its place in LABEL_KINDS, -1 without one."""
        numbers = np.full(len(self._allocations.birth), -1, dtype=np.int64)
        for label in sorted(self.labels, key=lambda label: label.time_ns):
            event = int(np.searchsorted(self.time_ns, label.time_ns, side="right")) - 1
            place = self._allocations.find(label.address, event)
            if place is not None and numbers[place] < 0:
                numbers[place] = LABEL_KINDS.index(label.kind)
        return numbers

    @cached_property
    def _kinds(self) -> npt.NDArray[np.str_]:
        """The kind of each allocation, as in breakdowns."""
        kinds = np.where(self._outlive_forward, "activations", "temporaries").astype("<U12")
        for number, kind in enumerate(LABEL_KINDS):
            kinds[self._label_numbers == number] = kind
        return kinds

    @cached_property
    def _outlive_forward(self) -> npt.NDArray[np.bool_]:
        """Which allocations a forward phase made and left alive at its end."""
        allocations = self._allocations
        outlive = np.zeros(len(allocations.birth), dtype=np.bool_)
        for interval in self.phases:
            if interval.name == "forward":
                first, end = self._span(interval)
                outlive |= (
                    (first <= allocations.birth)
                    & (allocations.birth < end)
                    & (allocations.death >= end)
                )
        return outlive

    def _span(self, interval: PhaseInterval) -> tuple[int, int]:
        """First event of a phase and the one after its last."""
        first, end = np.searchsorted(self.time_ns, [interval.start_ns, interval.end_ns])
        return int(first), int(end)

    def _highest(self, first: int, end: int, phase: str | None = None) -> Peak:
        before = int(self.live_bytes[first - 1]) if first else 0
        if first < end:
            event = first + int(np.argmax(self.live_bytes[first:end]))
            if self.live_bytes[event] > before:
                return Peak(int(self.live_bytes[event]), event, phase)
        return Peak(before, first - 1, phase)


def known_phase(name: str) -> Phase:
    """Return the phase of that name; ValueError, with the names there are, for another."""
    for phase in PHASES:
        if phase == name:
            return phase
    raise ValueError(f"{name!r} is not a phase (allowed: {', '.join(PHASES)})")
