"""What one forward pass and its recomputation share: the seed, the shape and the padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_SEED_BOUND = 2**62


@dataclass(frozen=True)
class Step:
    """One pass over a batch.

    A step draws one seed. Everything random in it derives from that seed and the place where it is
    used, so that a recomputation repeats dropout and hash rotations exactly.
    """

    batch: int
    length: int
    seed: int
    valid_BL: Tensor | None = None
    """True where a token is real, [batch, length] bool; None stands for everywhere."""
    training: bool = True

    @property
    def shapes(self) -> tuple[int, int, bool, bool]:
        """A key that is equal for steps that work with the same shapes."""
        return self.batch, self.length, self.valid_BL is None, self.training

    def seed_for(self, layer: int, use: int) -> int:
        """Return the seed of one use (0: attention dropout, 1: feed-forward dropout, 2:
        hashing).
        """
        # splitmix64's odd constant spreads neighbouring places over the whole range.
        return (self.seed + (layer * 8 + use + 1) * 0x9E3779B97F4A7C15) % _SEED_BOUND


def draw_seed() -> int:
    """Draw a seed from torch's global generator, so that torch.manual_seed repeats a step."""
    # The draw is real also while operators are only being traced on fake tensors.
    with _disable_current_modes():
        return int(torch.randint(_SEED_BOUND, ()))


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a generator for one use alone."""
    return torch.Generator(device).manual_seed(seed)
