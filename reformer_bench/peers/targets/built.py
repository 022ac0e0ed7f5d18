"""BuiltModel: a module with its inputs and its loss, however its target names it.

A length counts what the model's sequence is made of: tokens, samples of sound, the pixels of an
image's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reformer_bench.peers.targets.quiet import errors_only
from reformer_bench.schema.errors import InputError

Inputs = Any
"""What a forward pass takes: a tensor, a tuple of arguments, or a dict of named ones."""

EXAMPLE = """\
    class Mine:
        def __init__(self):
            self.module = MyModel()

        def inputs(self, batch, length, device):
            return torch.randint(1000, (batch, length), device=device)

        def loss(self, module, inputs):
            return module(inputs).float().mean()"""


class Builds(Protocol):
    """What a target has become once its code is imported."""

    def __call__(self, batch: int, length: int) -> BuiltModel:
        """Build the model for sequences of that length, in the memory of the CPU."""


@dataclass(frozen=True)
class BuiltModel:
    """A module, and what a step with it needs."""

    module: nn.Module
    inputs: Callable[[int, int, torch.device], Inputs]
    """From batch, length and device to what the forward pass takes."""
    loss: Callable[[nn.Module, Inputs], Tensor] | None = None
    """From the module and its inputs to the loss; None: what the output says itself."""
    length_name: str = "tokens"
    """What a length counts."""
    inference: Callable[[Inputs, bool], Inputs] | None = None
    """From the inputs, and whether keys and values are kept, to what inference takes."""
    settings: dict[str, str] = field(default_factory=dict)
    """What was decided about the model that its target doesn't say."""

    @errors_only()
    def forward(self, inputs: Inputs) -> Any:
        """Run the module on its inputs."""
        if isinstance(inputs, Mapping):
            return self.module(**inputs)
        if isinstance(inputs, tuple | list):
            return self.module(*inputs)
        return self.module(inputs)

    @errors_only()
    def own_loss(self, inputs: Inputs) -> Tensor:
        """Return the model's own loss, a scalar.

        Raises InputError where neither the object nor the output has one.
        """
        if self.loss is not None:
            return _as_scalar(self.loss(self.module, inputs), "loss(module, inputs)")
        out = self.forward(inputs)
        found = out.get("loss") if isinstance(out, Mapping) else getattr(out, "loss", None)
        if found is None and isinstance(out, Tensor) and out.numel() == 1:
            found = out
        if not isinstance(found, Tensor):
            raise InputError(
                f"the output of {type(self.module).__name__} has no loss: give the factory's "
                "object a method loss(module, inputs), or set train.loss=mean"
            )
        return _as_scalar(found, "the output's loss")

    @errors_only()
    def mean_loss(self, inputs: Inputs) -> Tensor:
        """Return the mean over all elements of the output's tensors that have gradients, or of its
        floating-point tensors where none are recorded.
        """
        means = [tensor.float().mean() for tensor in self.differentiable(self.forward(inputs))]
        total = means[0]
        for mean in means[1:]:
            total = total + mean
        return total

    def differentiable(self, out: Any) -> list[Tensor]:
        """Return the tensors of an output from which a backward pass can begin.

        Raises InputError where there is none.
        """
        recorded = torch.is_grad_enabled()
        found = [
            x
            for x in tensors_of(out)
            if x.is_floating_point() and (x.requires_grad or not recorded)
        ]
        if not found:
            raise InputError(
                f"the output of {type(self.module).__name__} has no tensor with a gradient"
            )
        return found


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an output: of tuples, lists, dicts and transformers' outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_of(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_of(one)


def _as_scalar(loss: Any, what: str) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = (
            f"a tensor of shape {tuple(loss.shape)}"
            if isinstance(loss, Tensor)
            else f"a {type(loss).__name__}"
        )
        raise InputError(f"{what} is to be a tensor of one number, and is {found}")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise InputError(f"{what} has no gradient: it depends on nothing that is trained")
    return loss
