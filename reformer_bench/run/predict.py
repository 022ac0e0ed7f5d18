"""Predicts a case's memory and FLOPs, from its real code on fake tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

from reformer_bench.measure.fake.devices import CPU, DeviceModel, cuda
from reformer_bench.measure.fake.places import places_of
from reformer_bench.measure.fake.recording import HOST, FakeRecording, record_fake_allocations
from reformer_bench.measure.predict import COLD, WARM, Prediction, prediction_of
from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels import chosen_kernel
from reformer_bench.model.repeats import followed_by
from reformer_bench.run.workloads import PhaseContext, Workload, build_workload
from reformer_bench.schema.case import Case
from reformer_bench.schema.devices import CUBLAS_WORKSPACE_BYTES, DeviceProfile
from reformer_bench.schema.model import Attention, LshKernel, ModelConfig
from reformer_bench.schema.record import Phase


def predict_case(
    case: Case, *, profile: DeviceProfile | None = None, follow_all: bool = False
) -> Prediction:
    """Predict what a case will take on its kind of device, without that device.

    ``profile`` says which device of that kind; without it, a common one is taken. Cases that differ
    only in name and seed are worked out once a process. ``follow_all`` follows every repetition by
    itself: slower, with the same result. Raises NotPredictableError where the case's code depends
    on values.
    """
    kind = case.device_kind
    plain = case.model_copy(update={"suite": "", "variant": "", "seed": 0, "device": kind})
    workspace = CUBLAS_WORKSPACE_BYTES if profile is None else profile.workspace_bytes
    device = CPU if kind == "cpu" else cuda(workspace)
    return _predicted(plain, device, follow_all, torch.get_num_threads())


@functools.lru_cache(maxsize=4096)
def _predicted(case: Case, device: DeviceModel, follow_all: bool, n_threads: int) -> Prediction:
    # CPU kernels have a buffer for each thread, so their number is part of what is remembered.
    with (
        record_fake_allocations(device) as recording,
        _following(recording, follow_all),
    ):
        _run(_on_fake_tensors(case), recording)
    return prediction_of(recording)


def _run(case: Case, recording: FakeRecording) -> None:
    """Run the build, a cold and a warm step, in the phases that a measurement has."""
    with recording.phase("build", COLD):
        workload = _built(case, recording.device)
    recording.label("parameters", workload.parameters())
    recording.hold(recording.device.constant_bytes)
    with places_of(recording, workload.module):
        for step in (COLD, WARM):
            workload.step(_phases(recording, step, workload))


def _built(case: Case, device: DeviceModel) -> Workload:
    """Build the workload on the fake device; on a CUDA one, offloaded parameters in the host's
    memory.
    """
    here = torch.device("cpu")
    if device.kind == "cpu" or case.model.parameter_offload == "none":
        return build_workload(case, here)
    with HOST:
        return build_workload(case, here, host=HOST)


def _phases(recording: FakeRecording, step: int, workload: Workload) -> PhaseContext:
    @contextmanager
    def phase(name: Phase) -> Iterator[None]:
        with recording.phase(name, step):
            yield
        if name == "backward":
            recording.label("gradients", workload.gradients())
        elif name == "optimizer":
            recording.label("optimizer", workload.optimizer_state())

    return phase


@contextmanager
def _following(recording: FakeRecording, follow_all: bool) -> Iterator[None]:
    """Let our own models say which of their work repeats, and where it is."""

    def follow(key: Hashable, work: Callable[[], None], place: str | None) -> None:
        with recording.at(place):
            if follow_all:
                work()
            else:
                recording.once(key, work)

    with followed_by(follow):
        yield


def _on_fake_tensors(case: Case) -> Case:
    """Return the case as fake CPU tensors run it, with the kernel that its device would take."""
    if case.device == "cpu" or case.model.lsh_kernel is not LshKernel.AUTO:
        return case
    kernel = _kernel_on_cuda(case.model)
    model = case.model.model_copy(update={"lsh_kernel": kernel})
    return case.model_copy(update={"model": model})


def _kernel_on_cuda(model: ModelConfig) -> LshKernel:
    """Return what ``auto`` becomes on CUDA; where layers differ, the kernel that takes more."""
    dtype = getattr(torch, model.dtype)
    kernels = {
        chosen_kernel(AttentionSettings.of(model, layer), torch.device("cuda"), dtype)[0]
        for layer in range(model.n_layers)
        if model.kind(layer) in (Attention.LSH, Attention.LOCAL)
    }
    return LshKernel.TRITON if kernels == {LshKernel.TRITON} else LshKernel.EAGER
