"""Prediction: a case's memory and operations, from its real code on fake tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from reformer_bench.measure.device_model import CPU, DeviceModel, cuda
from reformer_bench.measure.fake_tensor import FakeRecording, record_fake_allocations
from reformer_bench.model.repeats import followed_by
from reformer_bench.run.expand import device_kind
from reformer_bench.run.workloads import Workload, build_workload
from reformer_bench.spec.case import Case
from reformer_bench.spec.devices import CUBLAS_WORKSPACE_BYTES
from reformer_bench.spec.model import LshKernel
from reformer_bench.spec.record import AllocatorMemory, Breakdown, Phase

COLD, WARM = 0, 1


@dataclass(frozen=True)
class Prediction:
    """What a case will take."""

    memory: AllocatorMemory
    flops: int
    """Of matrix products and attention kernels in one step."""
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    """Bytes at the warm step's peak by place in the model and kind of memory."""

    @property
    def peak_bytes(self) -> int:
        """The allocator's peak."""
        return self.memory.peak_allocated_bytes

    @property
    def breakdown(self) -> Breakdown:
        """What the peak is made of."""
        assert self.memory.breakdown is not None
        return self.memory.breakdown


def predict_case(case: Case, *, follow_all: bool = False) -> Prediction:
    """What a case will take on its kind of device, without that device.

    Cases that differ only in name and seed are worked out once a process. ``follow_all`` follows
    every repetition by itself: slower, and the same. Raises NotPredictableError where the case's
    code depends on values.
    """
    kind = device_kind(case.device)
    plain = case.model_copy(update={"suite": "", "variant": "", "seed": 0, "device": kind})
    return _predicted(plain, follow_all)


@functools.lru_cache(maxsize=4096)
def _predicted(case: Case, follow_all: bool) -> Prediction:
    with record_fake_allocations(_device_model(case)) as recording, _following(
        recording, follow_all
    ):
        workload = _run(_on_fake_tensors(case), recording)
        del workload
    memory = recording.allocator_memory(COLD, WARM)
    assert memory is not None
    peak = recording.timeline.peak_of_step(WARM)
    assert peak is not None
    return Prediction(memory, recording.flops[WARM], recording.by_place(peak))


def _run(case: Case, recording: FakeRecording) -> Workload:
    """Build, a cold and a warm step, in the phases a measurement has."""
    with recording.phase("build", COLD):
        workload = build_workload(case, torch.device("cpu"))
    recording.label("parameters", workload.parameters())
    recording.hold(recording.device.constant_bytes)
    for step in (COLD, WARM):

        @contextmanager
        def phase(name: Phase, step: int = step) -> Iterator[None]:
            with recording.phase(name, step):
                yield
            if name == "backward":
                recording.label("gradients", workload.gradients())
            elif name == "optimizer":
                recording.label("optimizer", workload.optimizer_state())

        workload.step(phase)
    return workload


@contextmanager
def _following(recording: FakeRecording, follow_all: bool) -> Iterator[None]:
    """Our own models say which of their work repeats, and where it is."""

    def follow(key: Hashable, work: Callable[[], None], place: str | None) -> None:
        with recording.at(place):
            if follow_all:
                work()
            else:
                recording.once(key, work)

    with followed_by(follow):
        yield


def _device_model(case: Case) -> DeviceModel:
    return CPU if case.device == "cpu" else cuda(CUBLAS_WORKSPACE_BYTES)


def _on_fake_tensors(case: Case) -> Case:
    """The case as fake CPU tensors run it: with the kernel that its device would take."""
    if case.device == "cpu" or case.model.lsh_kernel is not LshKernel.AUTO:
        return case
    model = case.model.model_copy(update={"lsh_kernel": LshKernel.EAGER})
    return case.model_copy(update={"model": model})
