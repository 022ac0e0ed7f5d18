"""Workloads: what a step does, and that the same step runs on fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from reformer_bench.run.workloads import build_workload
from reformer_bench.schema.case import Case
from tests.builders import case

CPU = torch.device("cpu")
PHASES = {
    "train_step": ["forward", "backward", "optimizer"],
    "forward": ["forward"],
    "attention": ["forward", "backward"],
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(workload, after=lambda name: None) -> list[str]:
    names = []

    @contextmanager
    def phase(name):
        names.append(name)
        yield
        after(name)

    workload.step(phase)
    return names


def n_gradients(workload) -> int:
    return sum(p.grad is not None for p in workload.module.parameters())


@pytest.mark.parametrize("variant", ["reformer", "transformer"])
@pytest.mark.parametrize("kind", list(PHASES))
def test_a_step_has_its_phases_and_leaves_no_gradients(kind, variant):
    workload = build_workload(case(variant, length=48, workload=kind, batch=2), CPU)
    counts = {}
    names = run(workload, lambda name: counts.update({name: n_gradients(workload)}))
    assert names == PHASES[kind]
    assert n_gradients(workload) == 0
    if "backward" in names:
        assert counts["backward"] == len(list(workload.module.parameters())) > 0


@pytest.mark.parametrize("optimizer", ["adam", "adafactor"])
def test_a_train_step_learns_and_holds_optimizer_state(optimizer):
    workload = build_workload(case(length=48, optimizer=optimizer), CPU)
    before = [p.detach().clone() for p in workload.module.parameters()]
    assert not workload._optimizer.state
    run(workload)
    assert len(workload._optimizer.state) == len(before)
    after = list(workload.module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_an_optimizer_there_is_no_such_phase():
    workload = build_workload(case(length=48, optimizer="none"), CPU)
    assert run(workload) == ["forward", "backward"]
    assert n_gradients(workload) == 0


def test_the_seed_decides_parameters_and_data():
    def tensors(seed: int):
        made = build_workload(case(length=48, seed=seed), CPU)
        return [*made.module.parameters(), made._task._tokens_BL, made._task._targets_BL]

    assert all(torch.equal(a, b) for a, b in zip(tensors(1), tensors(1), strict=True))
    assert not torch.equal(tensors(1)[-1], tensors(2)[-1])


def test_targets_are_the_tokens_one_place_on():
    made = build_workload(case(length=48, batch=2), CPU)
    assert made._task._tokens_BL.shape == made._task._targets_BL.shape == (2, 48)
    assert torch.equal(made._task._tokens_BL[:, 1:], made._task._targets_BL[:, :-1])


@pytest.mark.parametrize("variant", ["reformer", "transformer", "flash-transformer"])
@pytest.mark.parametrize("kind", list(PHASES))
def test_the_same_step_runs_on_fake_tensors(kind, variant, monkeypatch):
    # Torch can't convert a module of fake parameters; these are on their device from the start.
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **options: self)
    with FakeTensorMode():
        workload = build_workload(case(variant, length=48, workload=kind), CPU)
        assert run(workload) == PHASES[kind]


def test_an_implementation_that_is_not_there_is_an_error_not_another_model():
    made: Case = case(implementation="transformers", workload="attention")
    with pytest.raises(ValueError, match="needs implementation = 'native', not 'transformers'"):
        build_workload(made, CPU)


def test_settings_tell_the_kernel():
    assert "lsh_kernel" in build_workload(case(), CPU).settings
