"""The tensors that a residual stack adds to: floats, or fixed-point numbers that undo
exactly.

P rows (batch · length), M model width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """Rows of activations that sublayers read from and add to."""

    norm_scale: float
    """What ``read`` multiplies rows by; a normalisation takes it out again by its epsilon."""

    def read(self, rows: slice) -> Tensor:
        """Return rows [p, M] in floating point, times ``norm_scale``."""
        ...

    def values(self, rows: slice) -> Tensor:
        """Return rows [p, M] in floating point."""
        ...

    def add_(self, rows: slice, y_PM: Tensor, sign: int) -> None:
        """Add ±y to rows, in place; ``y`` may be overwritten."""
        ...

    def add_product_(self, rows: slice, a_PK: Tensor, b_KM: Tensor, sign: int) -> None:
        """Add ±a·b to rows, in place."""
        ...


class FloatStream:
    """A stream of floats, as in the paper; undoing an addition leaves a rounding error."""

    norm_scale = 1.0

    def __init__(self, x_PM: Tensor) -> None:
        self.tensor = x_PM

    def read(self, rows: slice) -> Tensor:
        """Return the rows themselves."""
        return self.tensor[rows]

    def values(self, rows: slice) -> Tensor:
        """Return the rows themselves."""
        return self.tensor[rows]

    def add_(self, rows: slice, y_PM: Tensor, sign: int) -> None:
        """Add ±y to rows, in place."""
        self.tensor[rows].add_(y_PM, alpha=sign)

    def add_product_(self, rows: slice, a_PK: Tensor, b_KM: Tensor, sign: int) -> None:
        """Add ±a·b to rows, in place, without a temporary."""
        if a_PK.dtype == self.tensor.dtype:
            self.tensor[rows].addmm_(a_PK, b_KM, alpha=sign)
        else:
            self.tensor[rows].add_(a_PK @ b_KM, alpha=sign)


class FixedStream:
    """A stream of integers that count a small unit, so that adding and subtracting are
    exact.

    LSH attention makes exactness matter. A token whose vector lies on the border of two buckets
    changes its bucket by the last bit; that shifts the chunk borders of every bucket between, and
    the error spreads. Integers of the same size as the floats (32 bits for float32 and bfloat16
    sublayers, 64 for float64) undo every addition to the bit. So the recomputation sees the very
    vectors that the forward pass saw, and no buckets need to be stored.

    The unit is 2⁻²⁰ (range ±2048) in 32 bits and 2⁻⁴⁴ (range ±524288) in 64.
    """

    def __init__(self, x_PM: Tensor) -> None:
        wide = x_PM.dtype == torch.float64
        self._float = x_PM.dtype
        self._int = torch.int64 if wide else torch.int32
        self.norm_scale = 2.0**44 if wide else 2.0**20
        self.tensor = torch.empty_like(x_PM, dtype=self._int)
        self.tensor.copy_((x_PM * self.norm_scale).round_())

    def copy(self) -> FixedStream:
        """Return a stream of the same numbers in memory of its own."""
        twin = object.__new__(FixedStream)
        twin.__dict__.update(self.__dict__)
        twin.tensor = self.tensor.clone()
        return twin

    def read(self, rows: slice) -> Tensor:
        """Return the rows, counted in units."""
        return self.tensor[rows].to(self._float)

    def values(self, rows: slice) -> Tensor:
        """Return the rows in floating point."""
        return self.read(rows).mul_(1 / self.norm_scale)

    def add_(self, rows: slice, y_PM: Tensor, sign: int) -> None:
        """Add ±y, rounded to the unit, to rows."""
        units = (y_PM.to(self._float) * self.norm_scale).round_()
        self.tensor[rows].add_(units.to(self._int), alpha=sign)

    def add_product_(self, rows: slice, a_PK: Tensor, b_KM: Tensor, sign: int) -> None:
        """Add ±a·b, rounded to the unit, to rows."""
        if a_PK.dtype != self._float:
            self.add_(rows, a_PK @ b_KM, sign)
            return
        # A power of two: scaling the small factor gives the same bits as scaling the product.
        units = torch.mm(a_PK, b_KM * self.norm_scale).round_()
        self.tensor[rows].add_(units.to(self._int), alpha=sign)

    def largest(self) -> Tensor:
        """Return the largest magnitude in floating point, a scalar tensor."""
        low, high = self.tensor.aminmax()
        return torch.maximum(-low.to(self._float), high.to(self._float)) / self.norm_scale

    @property
    def limit(self) -> float:
        """Return half of the range, beyond which the next addition might not fit."""
        return 2.0**18 if self._int == torch.int64 else 2.0**10
