"""Workloads say what one step of a case does, phase by phase, on real or fake tensors.

B batch, L length, D model width. No phase reads a value back from the device, so that the same
step runs on fake tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.measure.fake.recording import HOST
from reformer_bench.measure.profile import PhaseContext
from reformer_bench.model import ReformerLM, attention_layer
from reformer_bench.peers.adapter import PeerModel
from reformer_bench.peers.huggingface import load_checkpoint
from reformer_bench.peers.huggingface_config import differences, read_config
from reformer_bench.peers.reformer_pytorch_lm import ReformerPytorchLM
from reformer_bench.peers.targets.load import load_target
from reformer_bench.peers.transformers_lm import TransformersLM
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.target import TargetConfig
from reformer_bench.schema.training import OPTIMIZERS, Training
from reformer_bench.techniques.checkpointing import checkpoint_gradients
from reformer_bench.techniques.offload import offloaded_activations


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


class TrainStep(Workload):
    """A training step: forward with the loss, backward, optimizer step."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._task, self._train = _task(case, device, host, training=True), case.train
        module, words = self._task.module, dict(self._task.settings)
        patterns = case.train.gradient_checkpointing
        if patterns:
            again = checkpoint_gradients(module, patterns)
            words["checkpointed"] = ", ".join(again) or "by the model's own method"
        if case.train.activation_offload and device.type == "cpu" and case.device_kind == "cpu":
            words["activation_offload"] = "nothing moves: the device is the CPU"
        super().__init__(module, words)
        self._optimizer = _optimizer(case, module)
        self._device, self._host = device, host

    def step(self, phase: PhaseContext) -> None:
        """Run forward and backward, as often as gradients are added up, and the optimizer;
        gradients are dropped at the end.
        """
        count = self._train.accumulate
        for _ in range(count):
            if self._train.loss == "none":
                self._without_loss(phase)
                continue
            with phase("forward"), self._switches():
                loss = self._task.loss(self._train.loss)
                if count > 1:
                    loss = loss / count
            with phase("backward"):
                loss.backward()
                del loss
        if self._optimizer is None:
            self.module.zero_grad(set_to_none=True)
        else:
            with phase("optimizer"):
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
        self._task.check()

    def _without_loss(self, phase: PhaseContext) -> None:
        with phase("forward"), self._switches():
            outputs = self._task.outputs()
        with phase("backward"):
            torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
            del outputs

    @contextmanager
    def _switches(self) -> Iterator[None]:
        """Run the forward pass as the switches have it."""
        with ExitStack() as stack:
            if self._train.activation_offload:
                stack.enter_context(offloaded_activations(self._device, self._host))
            stack.enter_context(_autocast(self._train, self._device))
            yield


class Forward(Workload):
    """The loss, computed without gradients."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._task, self._train = _task(case, device, host, training=False), case.train
        super().__init__(self._task.module, dict(self._task.settings))
        self._device = device

    def step(self, phase: PhaseContext) -> None:
        """Run the forward phase only."""
        with phase("forward"), torch.no_grad(), _autocast(self._train, self._device):
            if self._train.loss == "none":
                self._task.outputs()
            else:
                self._task.loss(self._train.loss)
        self._task.check()


class Eval(Workload):
    """Inference: the output, without loss and gradients."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._task, self._case = _task(case, device, host, training=False), case
        super().__init__(self._task.module, dict(self._task.settings))
        self._device = device

    def step(self, phase: PhaseContext) -> None:
        """Run the forward phase; what it gives is alive until its end."""
        with phase("forward"), torch.no_grad(), _autocast(self._case.train, self._device):
            self._task.infer(cache=self._case.eval.cache)
        self._task.check()


class AttentionLayer(Workload):
    """One attention sublayer, forward and backward, on random input of its parameters' dtype."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        layer = attention_layer(case.config).to(device).train()
        settings = getattr(layer, "settings", None)
        super().__init__(layer, settings() if callable(settings) else {})
        generator = torch.Generator().manual_seed(case.seed)
        shape_BLD = (case.batch, case.length, case.config.d_model)
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
    "eval": Eval,
    "attention": AttentionLayer,
}


def build_fake_workload(case: Case) -> Workload:
    """Build the workload of a case on fake tensors, inside a fake recording of its kind of device.

    On CUDA, offloaded parameters lie in the host's memory.
    """
    here = torch.device("cpu")
    if case.device_kind == "cpu":
        return build_workload(case, here)
    offloads = case.train.activation_offload
    if case.target is None:
        offloads = offloads or case.config.parameter_offload != "none"
    if not offloads:
        return build_workload(case, here)
    with HOST:
        return build_workload(case, here, host=HOST)


def prepare(case: Case) -> None:
    """Import what a case's model needs, before a recording of it begins.

    Raises InputError where a target can't be loaded.
    """
    if case.target is not None:
        load_target(case.target)


def _task(case: Case, device: torch.device, host: torch.device | None, *, training: bool) -> Task:
    """Build the model and its data on the device."""
    task: Task
    if case.target is not None:
        task = _TargetTask(case, case.target, device, training=training)
    else:
        task = _LanguageTask(case, device, host, training=training)
    return task


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


def _autocast(train: Training, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in fewer bits."""
    if train.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, train.autocast))


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


def _optimizer(case: Case, module: nn.Module) -> torch.optim.Optimizer | None:
    """Make the case's optimizer; None where there is none.

    Raises InputError where torch has none of that name, or refuses an argument or a parameter.
    """
    if case.optimizer == "none":
        return None
    name, given = OPTIMIZERS[case.optimizer], dict(case.train.optimizer_args)
    kind = getattr(torch.optim, name, None)
    if kind is None:
        raise InputError(f"torch {torch.__version__} has no optimizer {name}")
    if case.optimizer != "adafactor":
        # Small, so that random targets don't drive a model apart; it decides nothing measured.
        given.setdefault("lr", 1e-4)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return None
    try:
        optimizer: torch.optim.Optimizer = kind(parameters, **given)
    except (TypeError, ValueError, RuntimeError) as error:
        words = ", ".join(f"{key}={value!r}" for key, value in case.train.optimizer_args.items())
        raise InputError(f"train.optimizer {name}({words}): {error}") from None
    return optimizer
