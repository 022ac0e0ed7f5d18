"""Predictions of any module, and what is said where there can be none."""

import linecache

import pytest
import torch
from torch import nn

import reformer_bench
from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.reads import NotPredictableError
from reformer_bench.run.predict import predict_case
from reformer_bench.run.workloads import build_fake_workload
from reformer_bench.schema.devices import DEVICE_PROFILES
from reformer_bench.schema.errors import InputError
from tests.builders import case


def build() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Linear(64, 256), nn.GELU()), nn.Linear(256, 64))


class Training:
    """Two steps of Adam; the optimizer is made in the first."""

    def __init__(self) -> None:
        self.optimizer: torch.optim.Optimizer | None = None

    def __call__(self, module, phase) -> None:
        x = torch.randn(128, 64)
        with phase("forward"):
            loss = module(x).square().mean()
        with phase("backward"):
            loss.backward()
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(module.parameters())
        with phase("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()


def test_any_module_is_predicted_to_the_byte_with_its_parts():
    found = reformer_bench.predict(build, Training())
    training = Training()
    with record_cpu_allocations() as recording:
        with recording.phase("build"):
            module = build()
        for step in (0, 1):
            training(module, lambda name, step=step: recording.phase(name, step))
    measured = recording.allocator_memory()
    assert [p.allocated_bytes for p in found.memory.cold + found.memory.warm] == [
        p.allocated_bytes for p in measured.cold + measured.warm
    ]
    parameters = 4 * (64 * 256 + 256 + 256 * 64 + 64)
    assert found.breakdown.parameters_bytes == parameters
    assert found.breakdown.optimizer_bytes >= 2 * parameters
    assert found.flops == 2 * 128 * 64 * 256 * 5
    alive = [size for kinds in found.places.values() for size in kinds.values()]
    assert sum(alive) == found.breakdown.total_bytes
    assert found.places.keys() >= {"", "0"}


def test_the_name_of_a_device_profile_predicts_what_its_case_is_predicted_to_take():
    asked = case("transformer", length=64, model={"max_length": 128}, device="cuda")

    def step(module, phase) -> None:
        workload = workloads[module]
        workload.step(phase)

    workloads = {}

    def module_of_case() -> nn.Module:
        workload = build_fake_workload(asked)
        workloads[workload.module] = workload
        return workload.module

    for name in ("a100-40", "h100-80"):
        found = reformer_bench.predict(module_of_case, step, device=name)
        of_case = predict_case(asked, profile=DEVICE_PROFILES[name], follow_all=True)
        assert found.memory == of_case.memory
        assert found.flops == of_case.flops
    assert reformer_bench.predict(build, Training(), device="cpu") == reformer_bench.predict(
        build, Training()
    )


def test_a_device_that_does_not_exist_is_an_error_that_names_those_that_do():
    said = r"^device: .*'a100-41'.*did you mean 'a100-40'.*allowed: a100-40"
    with pytest.raises(InputError, match=said):
        reformer_bench.predict(build, Training(), device="a100-41")


def grows_by_value(module, phase) -> None:
    with phase("forward"):
        torch.empty(int((module(torch.ones(2, 64)) > 0).sum()))


def counts_by_value(module, phase) -> None:
    with phase("forward"):
        module(torch.ones(2, 64)).long().flatten().bincount()


def uses_other_parameters(module, phase) -> None:
    with phase("forward"):
        OTHER(torch.ones(2, 64))


OTHER = nn.Linear(64, 64)


@pytest.mark.parametrize(
    ("step", "operator", "line"),
    [
        (
            grows_by_value,
            "_local_scalar_dense",
            "torch.empty(int((module(torch.ones(2, 64)) > 0).sum()))",
        ),
        (counts_by_value, "bincount", "module(torch.ones(2, 64)).long().flatten().bincount()"),
        (uses_other_parameters, "gradients", "OTHER(torch.ones(2, 64))"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_code_that_needs_values_gets_one_line_with_operator_and_place(step, operator, line):
    with pytest.raises(NotPredictableError) as caught:
        reformer_bench.predict(build, step)
    message = str(caught.value)
    assert operator in message
    assert "\n" not in message
    what, _, advice = message.partition("; ")
    path, _, number = what.rpartition(", at ")[2].rpartition(":")
    assert path == __file__
    assert linecache.getline(__file__, int(number)).strip() == line
    assert advice
    assert isinstance(caught.value, InputError)


def test_a_step_without_phases_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="expected the step to enter a phase"):
        reformer_bench.predict(build, lambda module, phase: None)


def test_an_error_of_the_model_itself_is_passed_on():
    def wrong(module, phase) -> None:
        with phase("forward"):
            module(torch.ones(2, 65))

    with pytest.raises(RuntimeError, match="reduction dim"):
        reformer_bench.predict(build, wrong)
