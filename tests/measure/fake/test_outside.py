"""Tensors made before a recording, and modules imported during one."""

import copy
import functools
import importlib
import sys

import pytest
import torch
from torch import nn

import reformer_bench
from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.reads import NotPredictableError
from reformer_bench.measure.fake.recording import record_fake_allocations

CONSTANT = torch.arange(64.0)


class WithConstants(nn.Module):
    """Uses a tensor of its module, and a buffer that is one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.register_buffer("offset", CONSTANT)

    def forward(self, x):
        assert CONSTANT.sum() == 64 * 63 / 2
        return self.linear(x) * CONSTANT[:] + self.offset


class Counting(nn.Module):
    """Has a buffer of a number, as a batch norm has its count of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(3.0))

    def forward(self, x):
        return x * self.count


def step(module, phase) -> None:
    x = torch.ones(4, 64)
    with phase("forward"):
        loss = module(x).sum()
    with phase("backward"):
        loss.backward()
    module.zero_grad()


def measured_peaks(build) -> list[int]:
    with record_cpu_allocations() as recording:
        with recording.phase("build"):
            module = build()
        for number in (0, 1):
            step(module, lambda name, number=number: recording.phase(name, number))
    memory = recording.allocator_memory()
    return [p.allocated_bytes for p in memory.cold + memory.warm]


def predicted_peaks(build) -> list[int]:
    memory = reformer_bench.predict(build, step).memory
    return [p.allocated_bytes for p in memory.cold + memory.warm]


def layer() -> nn.Module:
    return nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0)


@pytest.mark.parametrize(
    "build",
    [WithConstants, lambda: copy.deepcopy(nn.Sequential(nn.Linear(64, 64), Counting()))],
    ids=["constants", "deep copies"],
)
def test_tensors_from_before_count_as_little_as_in_a_measurement(build):
    assert predicted_peaks(build) == measured_peaks(build)
    assert torch.equal(CONSTANT, torch.arange(64.0))


def test_a_stack_that_copies_its_layer_is_predicted_to_the_byte():
    def build():
        return nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False)

    def small(module, phase) -> None:
        with phase("forward"):
            loss = module(torch.ones(2, 8, 64)).sum()
        with phase("backward"):
            loss.backward()

    with record_cpu_allocations() as recording:
        with recording.phase("build"):
            module = build()
        for number in (0, 1):
            small(module, lambda name, number=number: recording.phase(name, number))
    assert reformer_bench.predict(build, small).memory.cold == recording.allocator_memory().cold


def test_a_module_that_is_there_already_counts_as_if_it_were_built_now():
    there = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    there[2].weight = there[0].weight
    before = {name: value.clone() for name, value in there.state_dict().items()}
    found = reformer_bench.predict(lambda: there, step)
    parameters = 4 * (64 * 64 + 3 * 64 + 64)
    assert found.breakdown.parameters_bytes == parameters
    # The first linear layer and the last share a weight.
    build, *_ = found.memory.cold
    assert build.allocated_bytes == parameters + 2 * 4 * 64 + 8
    assert all(type(p) is nn.Parameter and p.grad is None for p in there.parameters())
    assert all(torch.equal(before[name], value) for name, value in there.state_dict().items())


def test_parameters_from_before_that_no_module_returns_are_an_error():
    there = nn.Linear(64, 64)
    with pytest.raises(NotPredictableError, match=r"requires gradients.*test_outside.*build"):
        reformer_bench.predict(lambda: nn.Linear(64, 64), lambda _, phase: step(there, phase))
    assert there.weight.grad is None


def test_views_of_a_tensor_from_before_stay_views():
    x = torch.zeros(6)
    with record_fake_allocations() as recording, recording.phase("forward"):
        x[:3].add_(1)
        assert x.sum() == 3
    assert x.sum() == 0
    assert recording.timeline.peak().allocated_bytes == measured_in_place()


def measured_in_place() -> int:
    x = torch.zeros(6)
    with record_cpu_allocations() as recording, recording.phase("forward"):
        x[:3].add_(1)
        assert x.sum() == 3
    return recording.timeline.peak().allocated_bytes


def test_a_module_imported_meanwhile_has_real_tensors(tmp_path, monkeypatch):
    (tmp_path / "constants_of_a_model.py").write_text(
        "import torch\nTABLE = torch.ones(7)\nassert TABLE.sum().item() == 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    with record_fake_allocations() as recording, recording.phase("build"):
        module = importlib.import_module("constants_of_a_model")
        importlib.reload(module)
        made = torch.ones(7) + module.TABLE
    assert type(module.TABLE) is torch.Tensor
    assert type(made) is not torch.Tensor
    assert sys.meta_path == finders
    assert "exec_module" not in vars(module.__spec__.loader)
    # The operands and the sum, less the operand that the module owns.
    assert recording.timeline.peak().allocated_bytes == 2 * 28


@functools.lru_cache
def table(length: int) -> torch.Tensor:
    return torch.arange(length)


@functools.lru_cache
def width(length: int) -> int:
    return 2 * length


def test_no_cache_keeps_a_fake_tensor_after_a_prediction():
    def cached(module, phase) -> None:
        with phase("forward"):
            module(torch.ones(4, 64)).mul(table(width(32)))

    width(5)
    reformer_bench.predict(lambda: nn.Linear(64, 64), cached)
    assert type(table(64)) is torch.Tensor
    assert width.cache_info().currsize == 2
