"""Workloads say what one step of a case does, phase by phase, on real or fake tensors.

B batch, L length, D model width. No phase reads a value back from the device, so that the same
step runs on fake tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from reformer_bench.model import ReformerLM, attention_layer
from reformer_bench.peers.adapter import PeerModel
from reformer_bench.peers.huggingface import load_checkpoint
from reformer_bench.peers.huggingface_config import differences, read_config
from reformer_bench.peers.reformer_pytorch_lm import ReformerPytorchLM
from reformer_bench.peers.transformers_lm import TransformersLM
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Phase

PhaseContext = Callable[[Phase], AbstractContextManager[object]]


class Workload(Protocol):
    """A step of a case, and the tensors by which its memory is told apart."""

    settings: dict[str, str]
    module: nn.Module

    def step(self, phase: PhaseContext) -> None:
        """Run one step; ``phase(name)`` is entered around each of its phases."""

    def parameters(self) -> Iterable[Tensor]:
        """Return what is learned."""

    def gradients(self) -> Iterable[Tensor]:
        """Return the gradients that parameters hold now."""

    def optimizer_state(self) -> Iterable[Tensor]:
        """Return what the optimizer holds now."""


class _ModuleWorkload:
    """What the three workloads share: a module, and who owns which tensor."""

    def __init__(self, module: nn.Module, settings: dict[str, str]) -> None:
        self.module = module
        self.settings = settings
        self.optimizer: torch.optim.Optimizer | None = None

    def parameters(self) -> Iterable[Tensor]:
        """Return what is learned."""
        return list(self.module.parameters())

    def gradients(self) -> Iterable[Tensor]:
        """Return the gradients that parameters hold now."""
        return [p.grad for p in self.module.parameters() if p.grad is not None]

    def optimizer_state(self) -> Iterable[Tensor]:
        """Return what the optimizer holds now."""
        if self.optimizer is None:
            return []
        return [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]


class TrainStep(_ModuleWorkload):
    """A training step: forward with the loss, backward, optimizer step."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        model = _language_model(case, device, host).train()
        super().__init__(model, _told(case, model))
        self._model = model
        self._tokens_BL, self._targets_BL = _tokens(case, device)
        self.optimizer = _optimizer(case, model)

    def step(self, phase: PhaseContext) -> None:
        """Run forward, backward and optimizer; gradients are dropped at the end."""
        with phase("forward"):
            loss = self._model.loss(self._tokens_BL, self._targets_BL)
        with phase("backward"):
            loss.backward()
            del loss
        if self.optimizer is None:
            self._model.zero_grad(set_to_none=True)
        else:
            with phase("optimizer"):
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        _check_streams(self._model)


class Forward(_ModuleWorkload):
    """The loss, computed without gradients."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        model = _language_model(case, device, host).eval()
        super().__init__(model, _told(case, model))
        self._model = model
        self._tokens_BL, self._targets_BL = _tokens(case, device)

    def step(self, phase: PhaseContext) -> None:
        """Run the forward phase only."""
        with phase("forward"), torch.no_grad():
            self._model.loss(self._tokens_BL, self._targets_BL)
        _check_streams(self._model)


class AttentionLayer(_ModuleWorkload):
    """One attention sublayer, forward and backward, on random input of its parameters' dtype."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        layer = attention_layer(case.model).to(device).train()
        super().__init__(layer, _settings(layer))
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
    kinds: dict[str, Callable[[Case, torch.device, torch.device | None], Workload]] = {
        "train_step": TrainStep,
        "forward": Forward,
        "attention": AttentionLayer,
    }
    return kinds[case.workload](case, device, host)


def _language_model(
    case: Case, device: torch.device, host: torch.device | None
) -> ReformerLM | PeerModel:
    """Return the case's model, by whose code it is."""
    match case.implementation:
        case "native":
            return _native_model(case).place(device, host=host)
        case "reformer-pytorch":
            return ReformerPytorchLM(case.model, case.length).to(device)
        case "transformers":
            return TransformersLM(case.model, case.length).to(device)


def _told(case: Case, model: ReformerLM | PeerModel) -> dict[str, str]:
    """Return the model's settings, and what a checkpoint's own model does otherwise in training."""
    settings = model.settings()
    if case.checkpoint is None:
        return settings
    lost = differences(read_config(Path(case.checkpoint)))
    return {**settings, "library": "a converted checkpoint", "mismatches": "; ".join(lost)}


def _native_model(case: Case) -> ReformerLM:
    if case.checkpoint is None:
        return ReformerLM(case.model)
    return load_checkpoint(Path(case.checkpoint), case.model)


def _tokens(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw seeded random tokens and, one place on, their targets: [B, L] int64 each."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.batch, case.length + 1)
    tokens = torch.randint(case.model.vocab_size, shape, generator=generator)
    return tokens[:, :-1].contiguous().to(device), tokens[:, 1:].contiguous().to(device)


def _optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer | None:
    makers: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None] = {
        "adam": functools.partial(torch.optim.Adam, lr=1e-4),
        "adafactor": torch.optim.Adafactor,
        "none": None,
    }
    maker = makers[case.optimizer]
    return None if maker is None else maker(model.parameters())


def _check_streams(model: ReformerLM | PeerModel) -> None:
    """After the phases, which must not wait for the host: was the step's result a true one?"""
    if isinstance(model, ReformerLM):
        model.check_streams()


def _settings(layer: nn.Module) -> dict[str, str]:
    settings = getattr(layer, "settings", None)
    return settings() if callable(settings) else {}
