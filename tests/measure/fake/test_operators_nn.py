"""What convolutions, LSTM layers and normalisations hold inside is predicted as it is measured."""

import gc

import pytest
import torch
from torch import nn

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.recording import record_fake_allocations


def peaks(recorder, build, sizes) -> list[int]:
    """The peaks of the forward and of the backward pass."""
    gc.collect()
    with recorder() as recording:
        model, x = build(), torch.randn(sizes)
        with recording.phase("forward"):
            out = model(x)
            loss = (out[0] if isinstance(out, tuple) else out).square().mean()
            del out
        with recording.phase("backward"):
            loss.backward()
    return [found.allocated_bytes for found in recording.allocator_memory().cold]


def after_convolution(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), *layers)


IMAGE = (4, 8, 20, 20)
MODULES = {
    "LSTM": (lambda: nn.LSTM(16, 24), (12, 4, 16)),
    "LSTM of two layers and directions": (
        lambda: nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True, dropout=0.1),
        (4, 12, 16),
    ),
    "Conv1d": (lambda: nn.Conv1d(8, 16, 3), (4, 8, 50)),
    "Conv2d": (lambda: nn.Conv2d(8, 16, 3, stride=2), IMAGE),
    "Conv2d of groups": (lambda: nn.Conv2d(8, 16, 3, groups=8, dilation=2), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(4, 8, 3), (2, 4, 8, 8, 8)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 16, 4, stride=2), IMAGE),
    "BatchNorm2d": (lambda: after_convolution(nn.BatchNorm2d(16), nn.ReLU(inplace=True)), IMAGE),
    "InstanceNorm2d": (lambda: after_convolution(nn.InstanceNorm2d(16, affine=True)), IMAGE),
    "GroupNorm": (lambda: after_convolution(nn.GroupNorm(4, 16)), IMAGE),
    "Upsample": (lambda: after_convolution(nn.Upsample(scale_factor=2)), IMAGE),
    "Unfold": (lambda: after_convolution(nn.Unfold(3)), IMAGE),
    "MaxPool2d": (lambda: after_convolution(nn.MaxPool2d(3, 2, 1)), IMAGE),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_holds_is_predicted_to_the_byte(name):
    build, sizes = MODULES[name]
    measured = peaks(record_cpu_allocations, build, sizes)
    assert peaks(record_fake_allocations, build, sizes) == measured


def test_a_large_convolution_is_predicted_from_smaller_batches():
    def build():
        return nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 64, 3))

    sizes = (40, 8, 32, 32)
    measured = peaks(record_cpu_allocations, build, sizes)
    assert peaks(record_fake_allocations, build, sizes) == measured
