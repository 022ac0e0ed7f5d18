"""Workloads say what one step of a case does, phase by phase, on real or fake tensors.

B batch, L length, D model width. No phase reads a value back from the device, so that the same
step runs on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn

from reformer_bench.measure.fake.devices import HOST
from reformer_bench.measure.profile import PhaseContext
from reformer_bench.model import attention_layer
from reformer_bench.peers.targets.load import load_target
from reformer_bench.run.tasks import build_task
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
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


class TrainStep(Workload):
    """A training step: forward with the loss, backward, optimizer step."""

    def __init__(self, case: Case, device: torch.device, host: torch.device | None) -> None:
        self._task, self._train = build_task(case, device, host, training=True), case.train
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
        self._task, self._train = build_task(case, device, host, training=False), case.train
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
        self._task, self._case = build_task(case, device, host, training=False), case
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


def _autocast(train: Training, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in fewer bits."""
    if train.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, train.autocast))


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
