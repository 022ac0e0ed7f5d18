"""The CUDA recording: its logic, with the CPU's allocator for the device's; the rest on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reformer_bench.measure.allocator.cuda import (
    CudaRecording,
    allocated_blocks,
    record_cuda_allocations,
)
from reformer_bench.measure.timeline import COLD, TRACED, WARM

PEAK = 4000 + 800


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device whose statistics always say PEAK, with nothing allocated in the snapshot."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: PEAK)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**20)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: {"segments": []})
    return torch.device("cpu")


def traced(device: torch.device, n_temporary: int) -> CudaRecording:
    recording = CudaRecording(device)
    for step in (COLD, WARM):
        with recording.step(step, nn.Identity()), recording.phase("forward", step):
            pass
    with recording.step(TRACED, nn.Identity()):
        weight = torch.empty(1000)
        recording.label("parameters", [weight])
        with recording.phase("forward", TRACED):
            torch.empty(n_temporary)
    return recording


def test_a_trace_that_agrees_with_the_statistics_gives_the_breakdown(device: torch.device) -> None:
    memory = traced(device, 200).allocator_memory()
    assert memory is not None
    assert memory.breakdown is not None
    assert memory.breakdown.parameters_bytes == 4000
    assert memory.breakdown.temporaries_bytes == 800
    assert memory.breakdown_phase == "forward"
    assert memory.peak_reserved_bytes == 2**20


def test_a_trace_that_differs_from_the_statistics_gives_none(device: torch.device) -> None:
    memory = traced(device, 201).allocator_memory()
    assert memory is not None
    assert memory.breakdown is None
    assert memory.breakdown_phase is None


def test_labels_from_before_the_trace_count_for_blocks_still_there(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = CudaRecording(device)
    kept, gone = torch.empty(1000), torch.empty(1000)
    recording.label("parameters", [kept])
    recording.label("optimizer", [gone])
    address = gone.untyped_storage().data_ptr()
    del gone
    blocks = [
        {"address": kept.untyped_storage().data_ptr(), "size": 4096, "state": "active_allocated"},
        {"address": address, "size": 512, "state": "active_allocated"},
    ]
    snapshot = {"segments": [{"device": None, "blocks": blocks}]}
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: snapshot)
    with recording.step(TRACED, nn.Identity()), recording.phase("forward", TRACED):
        pass
    assert recording.timeline is not None
    found = recording.timeline.breakdown(recording.timeline.peak())
    assert (found.parameters_bytes, found.optimizer_bytes) == (4096, 0)
    assert found.total_bytes == 4096 + 512


def test_gradients_labelled_before_the_trace_count_though_only_torch_holds_them(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = CudaRecording(device)
    x = torch.ones(1000, requires_grad=True)
    x.exp().sum().backward()
    recording.label("gradients", [x.grad] if x.grad is not None else [])
    address = 0 if x.grad is None else x.grad.untyped_storage().data_ptr()
    block = {"address": address, "size": 4096, "state": "active_allocated"}
    snapshot = {"segments": [{"device": None, "blocks": [block]}]}
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: snapshot)
    with recording.step(TRACED, nn.Identity()), recording.phase("forward", TRACED):
        pass
    assert recording.timeline is not None
    found = recording.timeline.breakdown(recording.timeline.peak())
    assert found.gradients_bytes == 4096


def test_only_blocks_in_use_on_the_device_count_as_alive() -> None:
    def block(address: int, state: str) -> dict[str, object]:
        return {"address": address, "size": 512, "requested_size": 8, "state": state}

    states = ("active_allocated", "active_pending_free", "inactive")
    ours = {"device": 1, "blocks": [block(i, state) for i, state in enumerate(states)]}
    other = {"device": 0, "blocks": [block(9, "active_allocated")]}
    snapshot = {"segments": [ours, other]}
    assert allocated_blocks(snapshot, torch.device("cuda", 1)) == [(0, 512)]


def test_another_device_than_cuda_is_refused() -> None:
    recording = record_cuda_allocations(torch.device("cpu"))
    with pytest.raises(ValueError, match="expected a CUDA device, got 'cpu'"):
        recording.__enter__()


@pytest.mark.gpu
def test_the_trace_agrees_with_the_allocators_statistics_on_a_gpu() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    with record_cuda_allocations(device) as recording:
        with recording.phase("build"):
            model = torch.nn.Linear(300, 700, device=device)
            recording.label("parameters", model.parameters())
        for step in (COLD, WARM, TRACED):
            with recording.step(step, model):
                with recording.phase("forward", step):
                    loss = model(torch.randn(1000, 300, device=device)).relu().sum()
                with recording.phase("backward", step):
                    loss.backward()
                recording.label("gradients", [p.grad for p in model.parameters()])
            model.zero_grad()
            del loss
    memory = recording.allocator_memory()
    assert memory is not None
    assert memory.breakdown is not None
    assert memory.breakdown.total_bytes == max(p.allocated_bytes for p in memory.warm)
    assert memory.breakdown.parameters_bytes >= 4 * 301 * 700
    reserved = memory.peak_reserved_bytes
    assert reserved is not None
    assert reserved >= memory.peak_allocated_bytes


@pytest.mark.gpu
def test_a_phase_does_not_inherit_the_peak_of_the_one_before() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    with record_cuda_allocations(device) as recording:
        with recording.phase("forward"):
            torch.empty(2**26, device=device)
        with recording.phase("backward"):
            torch.empty(2**20, device=device)
    memory = recording.allocator_memory()
    assert memory is not None
    forward, backward = (part.allocated_bytes for part in memory.cold)
    assert forward - backward == 4 * (2**26 - 2**20)
