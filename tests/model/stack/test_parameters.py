"""However deep a stack is, at most two sublayers' offloaded parameters are on the device."""

import weakref

import pytest
import torch

from reformer_bench.model import sublayer
from reformer_bench.model.stack.parameters import ParameterLoader
from tests.models import small_model


@pytest.fixture
def alive(monkeypatch):
    """For each copy of parameters that is begun, how many sublayers' copies exist by then."""
    copies, counts = [], []
    load = ParameterLoader._load

    def followed(self, module):
        params = load(self, module)
        copies.append([weakref.ref(value) for value in params.values()])
        counts.append(sum(any(ref() is not None for ref in one) for one in copies))
        return params

    monkeypatch.setattr(ParameterLoader, "_load", followed)
    return counts


@pytest.mark.parametrize("residual", ["reversible", "checkpointed"])
def test_two_sublayers_are_on_the_device_at_most(residual, alive):
    model = small_model(residual=residual, parameter_offload="cpu", n_layers=4).place("cpu")
    tokens = torch.randint(31, (1, 24))
    model.loss(tokens, tokens).backward()
    assert len(alive) == 2 * 2 * 4, "each sublayer is copied in the forward and the backward pass"
    assert max(alive) == (2 if residual == "reversible" else 1)


def test_gradients_are_dropped_from_the_device_before_the_next_are_made(monkeypatch):
    made, counts = [], []
    zero_grads = sublayer.zero_grads

    def followed(params):
        counts.append(sum(any(ref() is not None for ref in one) for one in made))
        grads = zero_grads(params)
        made.append([weakref.ref(value) for value in grads.values()])
        return grads

    monkeypatch.setattr(sublayer, "zero_grads", followed)
    model = small_model(residual="reversible", parameter_offload="cpu").place("cpu")
    model(torch.randint(31, (1, 24))).sum().backward()
    assert counts == [0] * (2 * 3)
