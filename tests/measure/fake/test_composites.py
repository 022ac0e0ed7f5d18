"""The fast path of inference is predicted to the byte, though each layer is one operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.recording import record_fake_allocations

Run = Callable[[nn.Module, Tensor], object]


def layer(**fields: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(32, 4, 96, batch_first=True, **fields)


def cross(module: nn.Module, x: Tensor) -> object:
    return module(x, x.clone(), x.clone())


@pytest.mark.parametrize(
    ("build", "run"),
    [
        (lambda: layer(), lambda m, x: m(x)),
        (lambda: layer(norm_first=True, activation="gelu"), lambda m, x: m(x)),
        (
            lambda: nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False),
            lambda m, x: m(x, mask=torch.ones(19, 19).tril().log()),
        ),
        (lambda: nn.MultiheadAttention(32, 4, batch_first=True), lambda m, x: m(x, x, x)),
        (
            lambda: nn.MultiheadAttention(32, 4, batch_first=True),
            lambda m, x: m(x, x, x, need_weights=False),
        ),
        (lambda: nn.MultiheadAttention(32, 4, batch_first=True), cross),
    ],
    ids=["layer", "norm first, gelu", "stack with a mask", "attention", "no weights", "cross"],
)
def test_peaks_are_those_measured(build: Callable[[], nn.Module], run: Run) -> None:
    peaks = []
    for record in (record_fake_allocations, record_cpu_allocations):
        with record() as recording, torch.no_grad():
            with recording.phase("build"):
                module = build().eval()
                x = torch.randn(3, 19, 32)
            with recording.phase("forward"):
                out = run(module, x)
            del out
        peaks.append([part.allocated_bytes for part in recording.allocator_memory().cold])
        del module, x
    assert peaks[0] == peaks[1]


def test_a_result_written_to_a_tensor_at_hand_is_predicted() -> None:
    peaks = []
    for record in (record_fake_allocations, record_cpu_allocations):
        with record() as recording, torch.no_grad(), recording.phase("forward"):
            x, into = torch.randn(64, 64), torch.empty(64, 64)
            torch.ops.aten._softmax.out(x.t(), -1, False, out=into)
            torch.mul(x, 2, out=into)
            del x, into
        peaks.append([part.allocated_bytes for part in recording.allocator_memory().cold])
    assert peaks[0] == peaks[1]
