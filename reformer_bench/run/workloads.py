"""Workloads say what one step of a case does, phase by phase, on real or fake tensors.

B batch, L length, D model width. No phase reads a value back from the device, so that the same
step runs on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from reformer_bench.measure.fake.recording import HOST
from reformer_bench.measure.profile import PhaseContext
from reformer_bench.model import ReformerLM, attention_layer
from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.kernels import chosen_kernel
from reformer_bench.peers.adapter import PeerModel
from reformer_bench.peers.huggingface import load_checkpoint
from reformer_bench.peers.huggingface_config import differences, read_config
from reformer_bench.peers.reformer_pytorch_lm import ReformerPytorchLM
from reformer_bench.peers.transformers_lm import TransformersLM
from reformer_bench.schema.case import Case
from reformer_bench.schema.model import Attention, LshKernel, ModelConfig


class Workload:
    """A module, and a step in which a case uses it.

    ``settings`` say how the implementation was set.
    """

    def __init__(self, module: nn.Module, settings: dict[str, str]) -> None:
        self.module = module
        self.settings = settings

    def step(self, phase: PhaseContext) -> None:
        """Run one step; ``phase(name)`` is entered around each of its phases."""
        raise NotImplementedError


class TrainStep(Workload):
    """A training step: forward with the loss, backward, optimizer step."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._model = _language_model(case, device, host).train()
        super().__init__(self._model, _language_model_settings(case, self._model))
        self._tokens_BL, self._targets_BL = _tokens(case, device)
        self._optimizer = _optimizer(case, self._model)

    def step(self, phase: PhaseContext) -> None:
        """Run forward, backward and optimizer; gradients are dropped at the end."""
        with phase("forward"):
            loss = self._model.loss(self._tokens_BL, self._targets_BL)
        with phase("backward"):
            loss.backward()
            del loss
        if self._optimizer is None:
            self._model.zero_grad(set_to_none=True)
        else:
            with phase("optimizer"):
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
        _check_streams(self._model)


class Forward(Workload):
    """The loss, computed without gradients."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._model = _language_model(case, device, host).eval()
        super().__init__(self._model, _language_model_settings(case, self._model))
        self._tokens_BL, self._targets_BL = _tokens(case, device)

    def step(self, phase: PhaseContext) -> None:
        """Run the forward phase only."""
        with phase("forward"), torch.no_grad():
            self._model.loss(self._tokens_BL, self._targets_BL)
        _check_streams(self._model)


class AttentionLayer(Workload):
    """One attention sublayer, forward and backward, on random input of its parameters' dtype."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        layer = attention_layer(case.model).to(device).train()
        settings = getattr(layer, "settings", None)
        super().__init__(layer, settings() if callable(settings) else {})
        generator = torch.Generator().manual_seed(case.seed)
        shape_BLD = (case.batch, case.length, case.model.d_model)
        dtype = next(layer.parameters()).dtype
        x_BLD, dy_BLD = (
            torch.randn(shape_BLD, generator=generator, dtype=dtype).to(device) for _ in range(2)
        )
        self._x_BLD, self._dy_BLD = x_BLD.requires_grad_(), dy_BLD

    def step(self, phase: PhaseContext) -> None:
        """Run forward and backward; gradients are dropped at the end."""
        with phase("forward"):
            y_BLD = self.module(self._x_BLD)
        with phase("backward"):
            y_BLD.backward(self._dy_BLD)
            del y_BLD
        self._x_BLD.grad = None
        self.module.zero_grad(set_to_none=True)


def build_workload(case: Case, device: torch.device, host: torch.device | None = None) -> Workload:
    """Build the workload of a case on the device, its module and data; offloaded parameters on the
    host.

    Raises ValueError for an implementation or a workload that does not exist.
    """
    if case.implementation != "native" and case.workload == "attention":
        raise ValueError(
            f"workload = 'attention' needs implementation = 'native', not {case.implementation!r}"
        )
    torch.manual_seed(case.seed)
    return _WORKLOADS[case.workload](case, device, host)


_WORKLOADS: dict[str, Callable[[Case, torch.device, torch.device | None], Workload]] = {
    "train_step": TrainStep,
    "forward": Forward,
    "attention": AttentionLayer,
}


def build_fake_workload(case: Case) -> Workload:
    """Build the workload of a case on fake tensors, inside a fake recording of its kind of device.

    On CUDA, offloaded parameters lie in the host's memory, and the kernel is the one that a GPU
    would take.
    """
    here = torch.device("cpu")
    if case.device_kind == "cpu":
        return build_workload(case, here)
    if case.model.lsh_kernel is LshKernel.AUTO:
        model = case.model.model_copy(update={"lsh_kernel": _kernel_on_cuda(case.model)})
        case = case.model_copy(update={"model": model})
    if case.model.parameter_offload == "none":
        return build_workload(case, here)
    with HOST:
        return build_workload(case, here, host=HOST)


def _kernel_on_cuda(model: ModelConfig) -> LshKernel:
    """Return what ``auto`` becomes on CUDA; where layers differ, the kernel that takes more."""
    dtype = getattr(torch, model.dtype)
    kernels = {
        chosen_kernel(AttentionSettings.of(model, layer), torch.device("cuda"), dtype)[0]
        for layer in range(model.n_layers)
        if model.kind(layer) in (Attention.LSH, Attention.LOCAL)
    }
    return LshKernel.TRITON if kernels == {LshKernel.TRITON} else LshKernel.EAGER


def _language_model(
    case: Case, device: torch.device, host: torch.device | None
) -> ReformerLM | PeerModel:
    """Return the case's model, by whose code it is."""
    match case.implementation:
        case "native":
            model = (
                ReformerLM(case.model)
                if case.checkpoint is None
                else load_checkpoint(Path(case.checkpoint), case.model)
            )
            return model.place(device, host=host)
        case "reformer-pytorch":
            return ReformerPytorchLM(case.model, case.length).to(device)
        case "transformers":
            return TransformersLM(case.model, case.length).to(device)


def _language_model_settings(case: Case, model: ReformerLM | PeerModel) -> dict[str, str]:
    """Return the model's settings, and what a checkpoint's own model does otherwise in training."""
    settings = model.settings()
    if case.checkpoint is None:
        return settings
    lost = differences(read_config(Path(case.checkpoint)))
    return {**settings, "library": "a converted checkpoint", "mismatches": "; ".join(lost)}


def _tokens(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw seeded random tokens and, one place on, their targets: [B, L] int64 each."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.batch, case.length + 1)
    tokens = torch.randint(case.model.vocab_size, shape, generator=generator)
    return tokens[:, :-1].contiguous().to(device), tokens[:, 1:].contiguous().to(device)


def _optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer | None:
    match case.optimizer:
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=1e-4)
        case "adafactor":
            return torch.optim.Adafactor(model.parameters())
        case "none":
            return None


def _check_streams(model: ReformerLM | PeerModel) -> None:
    """After the phases, which must not wait for the host: was the step's result a true one?"""
    if isinstance(model, ReformerLM):
        model.check_streams()
