"""Tasks: a case's model with its data, this package's, a peer's or anybody's by a target.

B batch, L length.
"""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.model import ReformerLM
from reformer_bench.peers.adapter import PeerModel
from reformer_bench.peers.huggingface import load_checkpoint
from reformer_bench.peers.huggingface_config import differences, read_config
from reformer_bench.peers.reformer_pytorch_lm import ReformerPytorchLM
from reformer_bench.peers.targets.load import load_target
from reformer_bench.peers.transformers_lm import TransformersLM
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.target import TargetConfig


class Task(Protocol):
    """A model with its data, and what a step does with them."""

    module: nn.Module
    settings: dict[str, str]

    def loss(self, kind: str) -> Tensor:
        """Return the loss, a scalar: the model's ``own``, or the ``mean`` of its output."""

    def outputs(self) -> list[Tensor]:
        """Return what the model puts out, for a backward pass without a loss."""

    def infer(self, *, cache: bool) -> object:
        """Return what inference gives, keys and values of all layers among it where asked for."""

    def check(self) -> None:
        """After the phases, which must not wait for the host: was the result a true one?"""


def build_task(
    case: Case, device: torch.device, host: torch.device | None, *, training: bool
) -> Task:
    """Build the model and its data on the device; offloaded parameters on the host."""
    if case.target is not None:
        return _TargetTask(case, case.target, device, training=training)
    return _LanguageTask(case, device, host, training=training)


class _LanguageTask:
    """Language modelling on random tokens: this package's models, and the peers'."""

    def __init__(
        self, case: Case, device: torch.device, host: torch.device | None, *, training: bool
    ) -> None:
        self._model = _language_model(case, device, host).train(training)
        self.module: nn.Module = self._model
        self.settings = _language_model_settings(case, self._model)
        self._tokens_BL, self._targets_BL = _tokens(case, device)

    def loss(self, kind: str) -> Tensor:
        return self._model.loss(self._tokens_BL, self._targets_BL)

    def outputs(self) -> list[Tensor]:
        raise AssertionError("a language model of this package has its own loss")

    def infer(self, *, cache: bool) -> object:
        raise AssertionError("a language model of this package has the workload 'forward'")

    def check(self) -> None:
        if isinstance(self._model, ReformerLM):
            self._model.check_streams()


class _TargetTask:
    """Anybody's model on the inputs that its target makes."""

    def __init__(
        self, case: Case, target: TargetConfig, device: torch.device, *, training: bool
    ) -> None:
        built = load_target(target)(case.batch, case.length)
        module = built.module
        _check_real(module, target)
        if target.dtype != "float32":
            module = module.to(getattr(torch, target.dtype))
        self.module: nn.Module = module.to(device).train(training)
        self.settings = {**built.settings, "length": built.length_name}
        count = sum(p.numel() for p in module.parameters())
        self.settings["parameters"] = str(count)
        self._built = built
        made = built.inputs(case.batch, case.length, device)
        self._inputs = _placed(made, getattr(torch, target.dtype), device)
        if case.train.compile:
            if not _is_fake(self.module):
                self.module.compile()
            self.settings["compile"] = "torch.compile"

    def loss(self, kind: str) -> Tensor:
        if kind == "mean":
            return self._built.mean_loss(self._inputs)
        return self._built.own_loss(self._inputs)

    def outputs(self) -> list[Tensor]:
        out = self._built.forward(self._inputs)
        return self._built.differentiable(out) if torch.is_grad_enabled() else []

    def infer(self, *, cache: bool) -> object:
        inputs = self._inputs
        if self._built.inference is not None:
            inputs = self._built.inference(inputs, cache)
        elif cache:
            raise InputError("eval.cache: the model has no keys and values to keep (use_cache)")
        return self._built.forward(inputs)

    def check(self) -> None:
        """Have nothing to look at."""


def _check_real(module: nn.Module, target: TargetConfig) -> None:
    """Raise InputError for a module with parameters that are only shapes, which can't be moved."""
    name = next((n for n, p in module.named_parameters() if p.device.type == "meta"), None)
    if name is not None:
        raise InputError(
            f"{target.target}: parameter {name!r} is on the device 'meta'; the factory is to make "
            "a module with its parameters in the memory of the CPU"
        )


def _placed(inputs: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Return inputs with their tensors on the device, and numbers of 32 bits in the module's
    dtype; what is neither tensor, tuple, list nor dict stays as it is.
    """
    if isinstance(inputs, Tensor):
        return inputs.to(device, dtype if inputs.dtype is torch.float32 else inputs.dtype)
    if isinstance(inputs, MutableMapping):
        placed = copy.copy(inputs)
        for key, value in inputs.items():
            placed[key] = _placed(value, dtype, device)
        return placed
    if isinstance(inputs, tuple | list):
        values = [_placed(value, dtype, device) for value in inputs]
        return type(inputs)(*values) if hasattr(inputs, "_fields") else type(inputs)(values)
    return inputs


def _is_fake(module: nn.Module) -> bool:
    parameter = next(module.parameters(), None)
    return isinstance(parameter, FakeTensor)


def _language_model(
    case: Case, device: torch.device, host: torch.device | None
) -> ReformerLM | PeerModel:
    """Return the case's model, by whose code it is."""
    match case.implementation:
        case "native":
            model = (
                ReformerLM(case.config)
                if case.checkpoint is None
                else load_checkpoint(Path(case.checkpoint), case.config)
            )
            return model.place(device, host=host)
        case "reformer-pytorch":
            return ReformerPytorchLM(case.config, case.length).to(device)
        case "transformers":
            return TransformersLM(case.config, case.length).to(device)
        case "target":
            raise AssertionError("a target is built from its own code")


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
    tokens = torch.randint(case.config.vocab_size, shape, generator=generator)
    return tokens[:, :-1].contiguous().to(device), tokens[:, 1:].contiguous().to(device)
