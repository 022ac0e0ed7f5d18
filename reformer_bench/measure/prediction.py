"""Prediction: what a step will take, and for any module the way to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from reformer_bench.measure.device_model import CPU, DeviceModel
from reformer_bench.measure.fake_tensor import FakeRecording, record_fake_allocations
from reformer_bench.measure.module_places import places_of
from reformer_bench.spec.record import AllocatorMemory, Breakdown, Phase, PhasePeak

COLD, WARM = 0, 1
PhaseContext = Callable[[Phase], AbstractContextManager[object]]


@dataclass(frozen=True)
class Prediction:
    """What a step will take on a device, worked out without it."""

    memory: AllocatorMemory
    """Phase by phase, for the first step and a later one; all in bytes."""
    flops: int
    """Of matrix products and attention kernels in one step."""
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    """Bytes at the later step's peak by (module, kind of memory)."""

    @property
    def peak_bytes(self) -> int:
        """The allocator's peak."""
        return self.memory.peak_allocated_bytes

    @property
    def phases(self) -> tuple[PhasePeak, ...]:
        """The peak of each phase of the later step."""
        return self.memory.warm

    @property
    def breakdown(self) -> Breakdown:
        """What the peak is made of."""
        assert self.memory.breakdown is not None
        return self.memory.breakdown


def predict(
    build: Callable[[], nn.Module],
    step: Callable[[nn.Module, PhaseContext], None],
    *,
    device: DeviceModel = CPU,
) -> Prediction:
    """What a training or inference step of any module takes, without running it.

    ``build()`` makes the module; ``step(module, phase)`` runs one step with
    ``with phase("forward"):``, "backward" and "optimizer" around its parts. Both run twice over,
    really, on tensors that hold no memory; make inputs inside them. The optimizer may be made in
    the first step. Raises NotPredictableError, naming operator and source line, where the code
    depends on the values of tensors.
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
    """What a recording of a cold and a warm step says. ValueError where no phase was entered."""
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
