"""A case is one thing to measure, named by a hash of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from reformer_bench.schema.model import ModelConfig

Workload = Literal["train_step", "forward", "attention"]
Optimizer = Literal["adam", "adafactor", "none"]
Implementation = Literal["native", "reformer-pytorch", "transformers"]
DeviceKind = Literal["cpu", "cuda"]
Seed = int
"""What is random in a case is drawn from it: weights, tokens, dropout and hash rotations."""


def device_kind(device: str) -> DeviceKind:
    """Return ``cpu`` or ``cuda``, from ``cpu``, ``cuda`` or ``cuda:N``."""
    return "cuda" if device.startswith("cuda") else "cpu"


class Case(BaseModel):
    """What is measured: a workload on a model at a length and batch, on a device.

    ``attention`` is one attention sublayer, forward and backward; ``train_step`` is forward,
    loss, backward and optimizer step; ``forward`` is the loss without gradients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    suite: str
    variant: str
    """The name under which tables and plots show this model."""
    workload: Workload = "train_step"
    implementation: Implementation = "native"
    model: ModelConfig
    checkpoint: str | None = None
    """The folder, saved by transformers, that the weights come from; None for random ones."""
    optimizer: Optimizer = "adam"
    batch: Annotated[int, Field(ge=1)] = 1
    length: Annotated[int, Field(ge=1)]
    device: str = "cpu"
    """One of ``cpu``, ``cuda`` and ``cuda:N``."""
    seed: Seed = 0

    @property
    def id(self) -> str:
        """Twelve hex digits that change with anything in the case."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def device_kind(self) -> DeviceKind:
        """Whether the case runs on a CPU or on a CUDA device."""
        return device_kind(self.device)

    @property
    def tokens(self) -> int:
        """The number of tokens in one step."""
        return self.batch * self.length

    @property
    def series(self) -> tuple[str, str, str, int]:
        """What cases of growing length have in common: (suite, variant, workload, batch)."""
        return (self.suite, self.variant, self.workload, self.batch)
