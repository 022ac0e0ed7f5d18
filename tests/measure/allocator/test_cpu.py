"""The CPU recording is exact: known sequences give known bytes, inside operators too."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
import torch

from reformer_bench.measure.allocator.cpu import CpuRecording, record_cpu_allocations
from reformer_bench.measure.host import resident_bytes
from reformer_bench.schema.units import MIB


def recorded(work: Callable[[CpuRecording], object]) -> CpuRecording:
    with record_cpu_allocations() as recording, recording.phase("forward"):
        work(recording)
    return recording


def peak_bytes(work: Callable[[], object]) -> int:
    return recorded(lambda _: work()).timeline.peak().allocated_bytes


def test_tensors_count_their_bytes_and_release_them() -> None:
    def work(_: CpuRecording) -> None:
        a = torch.empty(1000)
        b = torch.empty(10, dtype=torch.float64)
        del a
        torch.empty(3, dtype=torch.int8)
        del b

    timeline = recorded(work).timeline
    assert timeline.delta_bytes.tolist() == [4000, 80, -4000, 3, -3, -80]
    assert timeline.live_bytes.tolist() == [4000, 4080, 80, 83, 80, 0]


def test_empty_tensors_and_views_take_nothing() -> None:
    x = torch.ones(64, 64)
    assert peak_bytes(lambda: (torch.empty(0), torch.empty(3, 0), x[1:], x.T, x.view(-1))) == 0


def test_a_storage_lives_as_long_as_any_view_of_it() -> None:
    def work(recording: CpuRecording) -> None:
        with recording.phase("build"):
            view = torch.empty(1000)[:1]
        with recording.phase("backward"):
            torch.empty(10)
        del view

    peaks = {p.phase: p.allocated_bytes for p in recorded(work).timeline.phase_peaks(0)}
    assert peaks == {"build": 4000, "backward": 4040, "forward": 4040}


def test_an_operators_own_temporaries_are_seen() -> None:
    x = torch.arange(1000.0)
    values, indices = 4000, 8000
    assert peak_bytes(lambda: torch.sort(x, descending=True)) > values + indices
    assert peak_bytes(lambda: x.exp()) == 4000


def test_what_backward_allocates_is_seen() -> None:
    x = torch.ones(1000, requires_grad=True)

    def work(recording: CpuRecording) -> None:
        y = x.exp()
        total = y.sum()
        with recording.phase("backward"):
            total.backward()
        recording.label("gradients", [x.grad] if x.grad is not None else [])

    timeline = recorded(work).timeline
    backward = next(p for p in timeline.phases if p.name == "backward")
    # y (4000) and the total (4) are alive; backward adds the gradient and the seed of ones (4).
    assert timeline.peak_of(backward).allocated_bytes == 4000 + 4 + 4000 + 4
    found = timeline.breakdown(timeline.peak_of(backward))
    assert found.gradients_bytes == 4000


def train_two_steps(recording: CpuRecording) -> None:
    with recording.phase("build"):
        model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Linear(256, 64))
        x = torch.randn(500, 64)
        optimizer = torch.optim.Adam(model.parameters(), foreach=False)
        recording.label("parameters", model.parameters())
    for step in (0, 1):
        with recording.phase("forward", step):
            loss = model(x).square().mean()
        with recording.phase("backward", step):
            loss.backward()
        recording.label("gradients", [p.grad for p in model.parameters() if p.grad is not None])
        with recording.phase("optimizer", step):
            optimizer.step()
        state = optimizer.state.values()
        recording.label("optimizer", [v for s in state for v in s.values()])
        optimizer.zero_grad()
        del loss


def test_the_breakdown_of_a_training_step_is_exact() -> None:
    with record_cpu_allocations() as recording:
        train_two_steps(recording)
    memory = recording.allocator_memory()
    assert memory is not None
    assert memory.breakdown is not None
    parameters = 4 * (64 * 256 + 256 + 256 * 64 + 64)
    hidden, loss = 4 * 500 * 256, 4
    assert memory.breakdown_phase == "backward"
    assert memory.breakdown.parameters_bytes == parameters
    # Two moments of each parameter, and a step count of each of the four tensors.
    assert memory.breakdown.optimizer_bytes == 2 * parameters + 4 * 4
    # The peak is in the second layer's backward, when the first to be used, its output, is gone.
    assert memory.breakdown.activations_bytes == hidden + loss
    assert memory.breakdown.total_bytes == max(p.allocated_bytes for p in memory.warm)
    assert [p.phase for p in memory.cold] == ["build", "forward", "backward", "optimizer"]
    assert [p.phase for p in memory.warm] == ["forward", "backward", "optimizer"]


def test_two_recordings_of_the_same_work_agree_to_the_byte() -> None:
    runs = []
    for _ in range(2):
        with record_cpu_allocations() as recording:
            train_two_steps(recording)
        runs.append(recording.timeline.delta_bytes.tolist())
    assert runs[0] == runs[1]


def test_live_bytes_are_what_the_process_grew_by() -> None:
    before = resident_bytes()
    with record_cpu_allocations() as recording:
        kept = [torch.ones(8 * MIB) for _ in range(4)]
    growth = resident_bytes() - before
    assert recording.timeline.live_bytes[-1] == sum(x.nbytes for x in kept) == 128 * MIB
    assert abs(growth - 128 * MIB) < 16 * MIB


def test_memory_from_before_the_recording_is_not_in_it() -> None:
    old = [torch.empty(1000)]

    def work(_: CpuRecording) -> None:
        old.clear()
        torch.empty(10)

    assert recorded(work).timeline.peak().allocated_bytes == 40


def test_an_error_keeps_what_was_recorded_and_the_phase_it_ended() -> None:
    recordings = []

    def fails() -> None:
        with record_cpu_allocations() as recording, recording.phase("forward"):
            recordings.append(recording)
            torch.empty(1000)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fails()
    memory = recordings[0].allocator_memory()
    assert memory is not None
    assert [(p.phase, p.allocated_bytes) for p in memory.cold] == [("forward", 4000)]


def test_the_timeline_is_there_only_after_the_end() -> None:
    with record_cpu_allocations() as recording, pytest.raises(RuntimeError, match="not ended"):
        _ = recording.timeline
    assert recording.timeline.peak().allocated_bytes == 0


def test_what_another_python_thread_allocates_is_not_seen() -> None:
    def work(_: CpuRecording) -> None:
        torch.empty(10)
        thread = Thread(target=torch.empty, args=(1000,))
        thread.start()
        thread.join()

    assert recorded(work).timeline.delta_bytes.tolist() == [40, -40]


def test_a_second_recording_inside_one_is_refused_and_the_first_goes_on() -> None:
    with record_cpu_allocations() as recording:
        kept = torch.empty(10)
        second = record_cpu_allocations()
        with pytest.raises(RuntimeError, match="runs already"):
            second.__enter__()
        more = torch.empty(20)
    assert recording.timeline.delta_bytes.tolist() == [kept.nbytes, more.nbytes]
