"""Benchmarks of the hot paths: time by pytest-benchmark, peak memory beside it in extra_info.

``pytest tests/benchmarks --benchmark-enable --benchmark-json FILE`` keeps them, and later
``--memory-compare FILE`` fails those whose memory grew. Plain ``pytest`` runs each once.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reformer_bench.model import ModelConfig, ReformerLM, attention_layer
from reformer_bench.model.attention.lsh import draw_rotations, hash_vectors
from reformer_bench.pytest_plugin import PeakMemory

LENGTH = 512
WIDTH = {"d_model": 64, "d_ff": 256, "n_heads": 2, "n_layers": 2, "max_length": LENGTH}
BATCH = 1


@pytest.fixture
def measured(benchmark) -> Callable[[Callable[[], object]], None]:
    """Times a function, and keeps the peak of a call that was not its first."""

    def run(function: Callable[[], object]) -> None:
        function()
        with PeakMemory(device="cpu") as peak:
            function()
        benchmark.extra_info.update(peak.extra_info())
        assert peak.peak_bytes > 0
        benchmark(function)

    return run


def forward(**model: object) -> Callable[[], object]:
    layer = attention_layer(ModelConfig(**{**WIDTH, **model}))
    x_BLM = torch.randn(BATCH, LENGTH, WIDTH["d_model"])

    def run() -> None:
        with torch.no_grad():
            layer(x_BLM)

    return run


def forward_and_backward(**model: object) -> Callable[[], object]:
    layer = attention_layer(ModelConfig(**{**WIDTH, **model}))
    x_BLM = torch.randn(BATCH, LENGTH, WIDTH["d_model"], requires_grad=True)

    def run() -> None:
        layer(x_BLM).sum().backward()
        x_BLM.grad = None
        layer.zero_grad(set_to_none=True)

    return run


ATTENTION = ("lsh", "full", "sdpa")


@pytest.mark.parametrize("attention", ATTENTION)
def test_attention_forward(measured, attention):
    measured(forward(attention=attention))


@pytest.mark.parametrize("attention", ATTENTION)
def test_attention_forward_and_backward(measured, attention):
    measured(forward_and_backward(attention=attention))


def test_hashing(measured):
    factors, heads, width = (16,), 2, 32
    rotations = draw_rotations(heads, width, 4, factors, 0, torch.device("cpu"), torch.float32)
    x_NLD = torch.randn(heads, LENGTH, width)
    measured(lambda: hash_vectors(x_NLD, rotations, factors))


@pytest.mark.parametrize("residual", ["reversible", "standard"])
def test_training_step(measured, residual):
    model = ReformerLM(ModelConfig(**WIDTH, attention="lsh", residual=residual))
    tokens_BL = torch.randint(256, (BATCH, LENGTH + 1))

    def run() -> None:
        model.loss(tokens_BL[:, :-1], tokens_BL[:, 1:]).backward()
        model.zero_grad(set_to_none=True)

    measured(run)
