"""A case is one thing to measure, named by a hash of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.target import Implementation, TargetConfig
from reformer_bench.schema.training import Evaluation, Optimizer, Training

Workload = Literal["train_step", "forward", "eval", "attention"]
DeviceKind = Literal["cpu", "cuda"]
Seed = int
"""What is random in a case is drawn from it: weights, tokens, dropout and hash rotations."""


def device_kind(device: str) -> DeviceKind:
    """Return ``cpu`` or ``cuda``, from ``cpu``, ``cuda`` or ``cuda:N``."""
    return "cuda" if device.startswith("cuda") else "cpu"


def _whose(model: Any) -> str:
    """Tell the config of a target from one of this package's models."""
    if isinstance(model, dict):
        return "target" if "target" in model else "own"
    return "target" if isinstance(model, TargetConfig) else "own"


AnyModel = Annotated[
    Annotated[ModelConfig, Tag("own")] | Annotated[TargetConfig, Tag("target")],
    Discriminator(_whose),
]
"""A model of this package (or a peer's of the same sizes), or anybody's by its target."""


class Case(BaseModel):
    """What is measured: a workload on a model at a length and batch, on a device.

    ``train_step`` is forward, loss, backward and optimizer step; ``forward`` is the loss without
    gradients; ``eval`` is a target's output without loss and gradients; ``attention`` is one
    attention sublayer, forward and backward.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    suite: str
    variant: str
    """The name under which tables and plots show this model."""
    workload: Workload = "train_step"
    implementation: Implementation = "native"
    model: AnyModel
    checkpoint: str | None = None
    """The folder, saved by transformers, that the weights come from; None for random ones."""
    optimizer: Optimizer = "adam"
    train: Training = Training()
    """How training runs, beside the optimizer."""
    eval: Evaluation = Evaluation()
    """How inference runs."""
    batch: Annotated[int, Field(ge=1)] = 1
    length: Annotated[int, Field(ge=1)]
    device: str = "cpu"
    """One of ``cpu``, ``cuda`` and ``cuda:N``."""
    seed: Seed = 0

    @property
    def id(self) -> str:
        """Twelve hex digits that change with anything in the case."""
        # What cases had before these switches came is what they have still.
        unset = {key for key in ("train", "eval") if getattr(self, key).is_default}
        data = self.model_dump(mode="json", exclude=unset)
        if isinstance(self.model, TargetConfig):
            data["model"] = self.model.decides()
        text = json.dumps(data, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def target(self) -> TargetConfig | None:
        """Whose model it is by its target; None for a model of this package or of a peer."""
        return self.model if isinstance(self.model, TargetConfig) else None

    @property
    def config(self) -> ModelConfig:
        """The config of a model of this package or of a peer; ValueError for a target."""
        if not isinstance(self.model, ModelConfig):
            raise ValueError(f"{self.model.target} has no config of this package's models")
        return self.model

    @property
    def device_kind(self) -> DeviceKind:
        """Whether the case runs on a CPU or on a CUDA device."""
        return device_kind(self.device)

    @property
    def products_dtype(self) -> str:
        """What matrix products compute in, the narrowest where autocast chooses."""
        return self.model.dtype if self.train.autocast == "none" else self.train.autocast

    @property
    def tokens(self) -> int:
        """The number of tokens in one step."""
        return self.examples * self.length

    @property
    def examples(self) -> int:
        """The number of sequences, or images, in one step."""
        return self.batch * self.train.accumulate

    @property
    def series(self) -> tuple[str, str, str, int]:
        """What cases of growing length have in common: (suite, variant, workload, batch)."""
        return (self.suite, self.variant, self.workload, self.batch)
