"""Peaks and breakdowns equal those of a plain simulation, event by event."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.measure.timeline import (
    LABEL_KINDS,
    PhaseInterval,
    StorageLabel,
    Timeline,
)
from reformer_bench.schema.record import PHASES

N_TIMES = 40


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Few addresses and few instants, so that reuse, ties and stray frees all happen."""
    times = st.integers(1, N_TIMES)
    sizes = st.integers(-3, 9)
    events = draw(st.lists(st.tuples(times, st.integers(1, 4), sizes), max_size=40))
    spans = st.tuples(st.sampled_from(PHASES), times, times, st.integers(0, 1))
    phases = [
        PhaseInterval(name, min(a, b), max(a, b), step)
        for name, a, b, step in draw(st.lists(spans, max_size=5))
    ]
    labels = draw(
        st.lists(st.builds(StorageLabel, st.sampled_from(LABEL_KINDS), times, st.integers(1, 4)))
    )
    return Timeline.from_events(events, phases, labels)


class Simulation:
    """Replays a timeline: after each event, which allocation (its birth) lives where."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.size: dict[int, int] = {}
        self.states: list[dict[int, int]] = [{}]
        columns = zip(timeline.time_ns, timeline.address, timeline.delta_bytes, strict=True)
        self.events = [(int(t), int(a), int(d)) for t, a, d in columns]
        for birth, (_, address, delta) in enumerate(self.events):
            live = dict(self.states[-1])
            if delta > 0:
                live[address] = birth
                self.size[birth] = delta
            elif delta < 0:
                live.pop(address, None)
            self.states.append(live)

    def bytes_after(self, n_events: int) -> int:
        return sum(self.size[birth] for birth in self.states[n_events].values())

    def n_before(self, time: int) -> int:
        return sum(event[0] < time for event in self.events)

    def peak(self, interval: PhaseInterval) -> int:
        first, end = self.n_before(interval.start_ns), self.n_before(interval.end_ns)
        return max(self.bytes_after(n) for n in range(first, end + 1))

    def label_of(self, birth: int) -> str | None:
        for label in sorted(self.timeline.labels, key=lambda label: label.time_ns):
            state = self.states[sum(event[0] <= label.time_ns for event in self.events)]
            if state.get(label.address) == birth:
                return label.kind
        return None

    def is_activation(self, birth: int) -> bool:
        for interval in self.timeline.phases:
            first, end = self.n_before(interval.start_ns), self.n_before(interval.end_ns)
            born = interval.name == "forward" and first <= birth < end
            if born and birth in self.states[end].values():
                return True
        return False

    def parts(self, n_events: int) -> dict[str, int]:
        found = dict.fromkeys((*LABEL_KINDS, "activations", "temporaries"), 0)
        for birth in self.states[n_events].values():
            label = self.label_of(birth)
            rest = "activations" if self.is_activation(birth) else "temporaries"
            found[label or rest] += self.size[birth]
        return found


@given(timelines())
@settings(max_examples=200, deadline=None)
def test_peaks_equal_those_of_a_plain_simulation(timeline: Timeline) -> None:
    plain = Simulation(timeline)
    assert timeline.peak().allocated_bytes == max(
        plain.bytes_after(n) for n in range(len(plain.states))
    )
    for interval in timeline.phases:
        peak = timeline.peak_of(interval)
        assert peak.allocated_bytes == plain.peak(interval)
        assert peak.allocated_bytes == plain.bytes_after(peak.event + 1)
    for step in (0, 1):
        expected: dict[str, int] = {}
        for interval in timeline.phases:
            if interval.step == step:
                expected.setdefault(interval.name, 0)
                expected[interval.name] = max(expected[interval.name], plain.peak(interval))
        assert {p.phase: p.allocated_bytes for p in timeline.phase_peaks(step)} == expected


@given(timelines())
@settings(max_examples=200, deadline=None)
def test_breakdowns_equal_those_of_a_plain_simulation_and_add_up(timeline: Timeline) -> None:
    plain = Simulation(timeline)
    for peak in [timeline.peak(), *map(timeline.peak_of, timeline.phases)]:
        found = timeline.breakdown(peak)
        assert found.total_bytes == peak.allocated_bytes
        parts = plain.parts(peak.event + 1)
        assert found.model_dump() == {f"{name}_bytes": size for name, size in parts.items()}


def test_a_phase_counts_what_was_alive_before_it() -> None:
    timeline = Timeline.from_events(
        [(1, 10, 100), (5, 11, 7), (6, 11, -7)],
        [PhaseInterval("build", 0, 3), PhaseInterval("forward", 4, 8)],
    )
    assert [p.allocated_bytes for p in timeline.phase_peaks(0)] == [100, 107]


def test_a_label_stays_with_the_allocation_when_its_address_is_used_again() -> None:
    timeline = Timeline.from_events(
        [(1, 10, 100), (3, 10, -100), (4, 10, 300)], labels=[StorageLabel("parameters", 2, 10)]
    )
    found = timeline.breakdown(timeline.peak())
    assert (found.parameters_bytes, found.temporaries_bytes) == (0, 300)


def test_a_label_put_late_holds_from_the_allocation_on() -> None:
    events = [(1, 10, 100), (2, 11, 50), (3, 11, -50)]
    timeline = Timeline.from_events(events, labels=[StorageLabel("gradients", 4, 10)])
    assert timeline.peak().event == 1
    assert timeline.breakdown(timeline.peak()).gradients_bytes == 100


def test_freeing_what_was_never_allocated_is_ignored() -> None:
    timeline = Timeline.from_events([(1, 9, -50), (2, 10, 8), (3, 9, -50), (4, 10, -8)])
    assert timeline.live_bytes.tolist() == [0, 8, 8, 0]


def test_events_of_one_instant_keep_their_order() -> None:
    timeline = Timeline.from_events([(1, 10, 8), (1, 10, -8), (1, 10, 4)])
    assert timeline.live_bytes.tolist() == [8, 0, 4]


def test_an_empty_timeline_has_a_peak_of_nothing() -> None:
    timeline = Timeline.from_events([], [PhaseInterval("forward", 1, 2)])
    assert timeline.peak().allocated_bytes == 0
    assert timeline.breakdown(timeline.peak()).total_bytes == 0
    assert Timeline.from_events([]).memory("fake-tensor") is None


def test_memory_of_a_record_has_the_breakdown_of_the_warm_step_where_there_is_one() -> None:
    events = [(1, 10, 100), (11, 11, 40), (12, 11, -40), (21, 12, 5), (22, 12, -5)]
    phases = [PhaseInterval("backward", 10, 20, 0), PhaseInterval("forward", 20, 30, 1)]
    warm = Timeline.from_events(events, phases).memory("fake-tensor")
    cold = Timeline.from_events(events, phases[:1]).memory("fake-tensor")
    assert warm is not None
    assert warm.breakdown is not None
    assert cold is not None
    assert cold.breakdown is not None
    assert (warm.breakdown_phase, warm.breakdown.total_bytes) == ("forward", 105)
    assert (cold.breakdown_phase, cold.breakdown.total_bytes) == ("backward", 140)
    assert cold.warm == ()


def test_an_unknown_phase_names_those_there_are() -> None:
    timeline = Timeline.from_events([], [PhaseInterval("lunch", 1, 2)])
    with pytest.raises(ValueError, match=r"'lunch' is not a phase \(allowed: build, forward"):
        timeline.phase_peaks(0)


def test_events_out_of_order_are_an_error() -> None:
    column = np.array([2, 1], dtype=np.int64)
    with pytest.raises(ValueError, match="in order of time"):
        Timeline(column, column, column)


def test_a_million_events_and_thousands_of_labels_balance() -> None:
    n = 500_000
    generator = np.random.default_rng(0)
    address = generator.permutation(n) % 1000
    events = np.empty((2 * n, 3), dtype=np.int64)
    events[0::2] = np.stack([np.arange(n) * 2, address, np.full(n, 64)], axis=1)
    events[1::2] = np.stack([np.arange(n) * 2 + 1, address, np.full(n, -64)], axis=1)
    labels = tuple(
        StorageLabel("parameters", int(t), int(address[t // 2])) for t in range(0, 20_000, 4)
    )
    timeline = Timeline(
        events[:, 0], events[:, 1], events[:, 2], (PhaseInterval("forward", 0, 2 * n),), labels
    )
    assert timeline.live_bytes[-1] == 0
    assert timeline.breakdown(timeline.peak()).parameters_bytes == 64
