"""Gradient checkpointing by patterns: the same gradients, and what is wrong is said."""

import copy

import pytest
import torch
from torch import nn

from reformer_bench.schema.errors import InputError
from reformer_bench.techniques.checkpointing import checkpoint_gradients


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))).double()


def gradients(module: nn.Module) -> list[torch.Tensor]:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 6)
    module(x).square().sum().backward()
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize(("patterns", "changed"), [
    (("0", "1"), ["0", "1"]),
    (("*",), ["0", "1", "2"]),
    (("1.*",), ["1.0", "1.1"]),
    (("2", "2.0"), ["2"]),
])  # fmt: skip
def test_gradients_are_the_same(patterns, changed):
    plain = model()
    checkpointed = copy.deepcopy(plain)
    assert checkpoint_gradients(checkpointed, patterns) == changed
    for one, other in zip(gradients(plain), gradients(checkpointed), strict=True):
        assert torch.equal(one, other)


def test_what_matches_runs_twice_in_training_and_once_without_gradients():
    module, runs = model(), []
    module[1][0].register_forward_hook(lambda *_: runs.append(1))
    checkpoint_gradients(module, ("1",))
    gradients(module)
    assert len(runs) == 2
    with torch.no_grad():
        module(torch.zeros(2, 6, dtype=torch.float64))
    assert len(runs) == 3


def test_a_models_own_method_is_called():
    module = model()
    called = []
    module.set_grad_checkpointing = lambda: called.append(1)
    assert checkpoint_gradients(module, ("model",)) == []
    assert called == [1]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [(("layers.*",), "no module's name matches 'layers.*'"), (("model",), "has neither")],
)
def test_what_is_not_there_is_said(patterns, said):
    with pytest.raises(InputError) as error:
        checkpoint_gradients(model(), patterns)
    assert said in str(error.value)
