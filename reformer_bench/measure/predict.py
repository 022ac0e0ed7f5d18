"""Prediction: what a step will take, and for any module the way to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from reformer_bench.measure.fake.devices import CPU, DeviceModel
from reformer_bench.measure.fake.places import places_of
from reformer_bench.measure.fake.recording import FakeRecording, record_fake_allocations
from reformer_bench.schema.record import AllocatorMemory, Breakdown, Phase, PhasePeak

COLD, WARM = 0, 1
PhaseContext = Callable[[Phase], AbstractContextManager[object]]


@dataclass(frozen=True)
class Prediction:
    """What a step will take on a device, worked out without that device."""

    memory: AllocatorMemory
    """The peaks of each phase, in bytes: of the first step (cold) and of a later one (warm)."""
    flops: int
    """How many FLOPs the matrix products and attention kernels of one step take."""
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    """What is alive at the later step's peak, in bytes, by (module name, kind of memory)."""

    @property
    def peak_bytes(self) -> int:
        """The highest number of bytes that the allocator has given out at once."""
        return self.memory.peak_allocated_bytes

    @property
    def phases(self) -> tuple[PhasePeak, ...]:
        """The peak of each phase of the later step."""
        return self.memory.warm

    @property
    def breakdown(self) -> Breakdown:
        """What the peak is made of, in bytes: parameters, gradients, optimizer state and so on."""
        assert self.memory.breakdown is not None
        return self.memory.breakdown


def predict(
    build: Callable[[], nn.Module],
    step: Callable[[nn.Module, PhaseContext], None],
    *,
    device: DeviceModel = CPU,
) -> Prediction:
    """Predict what one step of a module takes, without running it.

    The module is built and its step is run twice, on tensors that have a shape but hold no memory:
    the first step as a process begins with it, and a later one, in which gradients and optimizer
    state already exist. An optimizer may be made in the first step.

    Args:
        build: Makes and returns the module.
        step: Called as ``step(module, phase)``; it runs one step on inputs that it makes itself,
            and enters ``phase("forward")``, ``phase("backward")`` and ``phase("optimizer")`` around
            its parts, each as a context manager.
        device: How the device allocates memory; a CPU unless said otherwise (see
            ``measure.device_model``).

    Returns:
        The prediction, with memory in bytes.

    Raises:
        NotPredictableError: The code needs the value of a tensor, which fake tensors don't have;
            the text names operator and source line.
        ValueError: The step has entered no phase.
    """
    optimizers: set[torch.optim.Optimizer] = set()
    with record_fake_allocations(device) as recording:
        with recording.phase("build", COLD):
            module = build()
        recording.label("parameters", module.parameters())
        recording.hold(device.constant_bytes)
        noted = register_optimizer_step_post_hook(lambda optimizer, *_: optimizers.add(optimizer))
        try:
            with places_of(recording, module):
                for number in (COLD, WARM):
                    step(module, _phases(recording, number, module, optimizers))
        finally:
            noted.remove()
    return prediction_of(recording)


def prediction_of(recording: FakeRecording) -> Prediction:
    """Return what the recording of a cold and a warm step says.

    Raises ValueError where no phase was entered.
    """
    memory = recording.allocator_memory(COLD, WARM)
    peak = recording.timeline.peak_of_step(WARM)
    if memory is None or peak is None:
        raise ValueError("expected the step to enter a phase ('forward'), it entered none")
    return Prediction(memory, recording.flops[WARM], recording.by_place(peak))


def _phases(
    recording: FakeRecording,
    number: int,
    module: nn.Module,
    optimizers: set[torch.optim.Optimizer],
) -> PhaseContext:
    @contextmanager
    def phase(name: Phase) -> Iterator[None]:
        with recording.phase(name, number):
            yield
        if name == "backward":
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            recording.label("gradients", gradients)
        elif name == "optimizer":
            recording.label("optimizer", _state(optimizers))

    return phase


def _state(optimizers: set[torch.optim.Optimizer]) -> Iterator[Any]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))
