"""PeerModel: another library's model under the interface that a workload needs of ours.

B batch, L length, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from reformer_bench.model import ReformerLM
from reformer_bench.model.tensors import compute_dtype
from reformer_bench.peers.installed import check_installed, library_version
from reformer_bench.schema.model import Attention, ModelConfig, Residual


class PeerModel(nn.Module, ABC):
    """A peer's language model built from our config for sequences of one length.

    What the peer can't be made to do like the config says is listed by ``mismatches``; what it
    would do instead of the task is refused.

    Args:
        config: The model that is asked for.
        length: How many tokens every sequence has.

    Raises:
        InputError: The peer's library is missing.
        ValueError: The peer can't keep to the task with this config or length.
    """

    library: ClassVar[str]
    """The implementation's name, which is that of its distribution."""

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        self.config, self.length = config, length
        _check_config(self.library, config)
        self.check_length()
        check_installed(self.library)
        self.check_switches()
        self.arguments = self.pinned()
        self.peer = self.build().to(compute_dtype(config))

    @abstractmethod
    def check_length(self) -> None:
        """Raise ValueError where the peer can't do the length, or would do another task at it."""

    @abstractmethod
    def check_switches(self) -> None:
        """Raise ValueError where the peer can't do a switch of the config."""

    @abstractmethod
    def pinned(self) -> dict[str, Any]:
        """Return all of the peer's own settings, by the peer's own names, so that none is left to
        its default.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the peer's own model from the pinned ``arguments``."""

    @abstractmethod
    def comparison(self) -> Iterable[tuple[bool, str]]:
        """Yield (whether the config says the same, what the peer computes), apart from parameters
        and dtypes.
        """

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
            **{name: str(value) for name, value in self.arguments.items()},
            "parameters": str(sum(p.numel() for p in self.parameters())),
            "mismatches": "; ".join(self.mismatches()),
        }

    def mismatches(self) -> list[str]:
        """Say what could not be matched to the config, the number of parameters included; nothing
        where all was matched.
        """
        found = [words for same, words in self.comparison() if not same]
        ours, theirs = parameter_count(self.config), sum(p.numel() for p in self.parameters())
        if ours != theirs:
            share = 100 * (theirs - ours) / ours
            found.append(f"{theirs:,} parameters instead of {ours:,} ({share:+.2g}%)")
        if self.config.dtype == "bfloat16":
            found.append("parameters and streams are bfloat16 as well, not float32")
        return found


def hashing_comparison(config: ModelConfig) -> tuple[tuple[bool, str], ...]:
    """Return what LSH attention of both peers does, each with whether the config says the same."""
    return (
        (config.look_back == "ring", "the first chunk of a round looks back to another round"),
        (config.attend_across_buckets, "chunks see other buckets"),
        (config.count_duplicates, "keys found in several rounds count each time"),
    )


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
