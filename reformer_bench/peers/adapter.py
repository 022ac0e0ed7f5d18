"""PeerModel: another library's model under the interface that a workload needs of ours.

B batch, L length, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model import ReformerLM
from reformer_bench.peers.installed import library_version
from reformer_bench.schema.model import Attention, ModelConfig, Residual

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class PeerModel(nn.Module, ABC):
    """A peer's language model built from our config for sequences of one length.

    What the peer can't be made to do like the config says is listed by ``mismatches``; what it
    would do instead of the task is refused with a ValueError.
    """

    library: str
    """The implementation's name, which is that of its distribution."""

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        self.config, self.length = config, length
        _check_config(self.library, config)
        self.check_length()
        self.peer = self.build().to(_DTYPES[config.dtype])

    @abstractmethod
    def check_length(self) -> None:
        """Raise ValueError where the peer can't do the length, or would do another task at it."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the peer's own model, with every setting fixed."""

    @abstractmethod
    def pinned(self) -> dict[str, str]:
        """Return the peer's own settings, by the peer's own names."""

    @abstractmethod
    def differences(self) -> list[str]:
        """Say what the peer computes otherwise than the config says, apart from parameters."""

    @abstractmethod
    def logits(self, tokens_BL: Tensor) -> Tensor:
        """Return the logits [B, L, V] of tokens [B, L] int64."""

    def loss(self, tokens_BL: Tensor, targets_BL: Tensor) -> Tensor:
        """Return the mean cross-entropy, a scalar, of tokens and targets [B, L] int64.

        Raises ValueError for tokens of a length other than the one the model was built for.
        """
        if tokens_BL.shape[1] != self.length:
            raise ValueError(
                f"this {self.library} model was built for length {self.length}, not "
                f"{tokens_BL.shape[1]}"
            )
        logits_BLV = self.logits(tokens_BL)
        return functional.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten())

    def settings(self) -> dict[str, str]:
        """Return all fixed settings, the number of parameters, and what could not be matched."""
        return {
            "library": library_version(self.library),
            **self.pinned(),
            "parameters": str(sum(p.numel() for p in self.parameters())),
            "mismatches": "; ".join(self.mismatches()),
        }

    def mismatches(self) -> list[str]:
        """Say what could not be matched to the config, the number of parameters included; empty
        where all was.
        """
        found = self.differences()
        ours, theirs = parameter_count(self.config), sum(p.numel() for p in self.parameters())
        if ours != theirs:
            share = 100 * (theirs - ours) / ours
            found.append(f"{theirs:,} parameters instead of {ours:,} ({share:+.2g}%)")
        if self.config.dtype == "bfloat16":
            found.append("parameters and streams are bfloat16 as well, not float32")
        return found


def parameter_count(config: ModelConfig) -> int:
    """Count the parameters of our own model of a config; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in ReformerLM(config).parameters())


def _check_config(library: str, config: ModelConfig) -> None:
    """Raise ValueError for switches that no peer has."""
    kinds = {config.kind(layer) for layer in range(config.n_layers)}
    for field, value, allowed in (
        ("residual", config.residual, Residual.REVERSIBLE),
        ("parameter_offload", config.parameter_offload, "none"),
    ):
        if value != allowed:
            raise ValueError(f"{library} cannot do {field} = {str(value)!r}, only {str(allowed)!r}")
    if not kinds <= {Attention.LSH, Attention.LOCAL}:
        raise ValueError(
            f"{library} cannot do attention = {[str(k) for k in config.attention]}, "
            "only LSH (and, in transformers, local)"
        )
