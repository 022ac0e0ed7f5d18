"""Prediction: what a step of any module will take, worked out on tensors that hold no memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from reformer_bench.measure.fake.devices import DeviceModel, device_model
from reformer_bench.measure.fake.outside import clear_caches_of_fake_tensors
from reformer_bench.measure.fake.recording import FakeRecording, record_fake_allocations
from reformer_bench.measure.profile import PhaseContext, record_steps
from reformer_bench.schema.devices import device_profile
from reformer_bench.schema.prediction import Prediction


@dataclass(frozen=True)
class _ModuleStep:
    module: nn.Module
    run: Callable[[nn.Module, PhaseContext], None]

    def step(self, phase: PhaseContext) -> None:
        self.run(self.module, phase)


def predict(
    build: Callable[[], nn.Module],
    step: Callable[[nn.Module, PhaseContext], None],
    *,
    device: str | DeviceModel = "cpu",
    explain: bool = False,
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
        device: The device whose allocator is imitated: ``cpu``, the name of another device profile
            (``a100-40``, ``h100-80``, …; see ``reformer_bench.schema.devices``), or a model of a
            device.
        explain: Also say what is alive at the peak, and which lines of code made it.

    Returns:
        The prediction: the peak of each phase and what the highest one consists of, in bytes, and
        the FLOPs of one step.

    Raises:
        InputError: There is no device of that name; the text lists those there are.
        NotPredictableError: The code needs the value of a tensor, which fake tensors don't have;
            the text names operator and source line.
        ValueError: The step has entered no phase.
    """
    return follow(build, step, device=device, explain=explain).prediction()


def follow(
    build: Callable[[], nn.Module],
    step: Callable[[nn.Module, PhaseContext], None],
    *,
    device: str | DeviceModel = "cpu",
    explain: bool = False,
) -> FakeRecording:
    """Return the recording that a prediction is taken from; arguments and errors are those of
    ``predict``.
    """
    model = device
    if isinstance(model, str):
        profile = device_profile(model, asked_by="device")
        model = device_model(profile.kind, profile.workspace_bytes)
    try:
        with record_fake_allocations(model, explain=explain) as recording:
            record_steps(recording, lambda: _ModuleStep(recording.outside.module(build()), step))
    finally:
        clear_caches_of_fake_tensors()
    return recording
