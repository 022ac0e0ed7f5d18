"""The tensors that a residual stack adds to: floats, or fixed-point numbers that undo exactly.

P rows (batch · length), M model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from reformer_bench.model.fused import add_units_, count_in_range_, fuses_rows


class Stream(Protocol):
    """Rows of activations that sublayers read from and add to."""

    @property
    def norm_scale(self) -> float:
        """What ``read`` multiplies rows by; a normalisation takes it out again by its epsilon."""
        ...

    def stored(self, rows: slice) -> Tensor:
        """Return rows [p, M] as they are stored, which is times ``norm_scale``; a view."""
        ...

    def read(self, rows: slice) -> Tensor:
        """Return rows [p, M] in floating point, times ``norm_scale``."""
        ...

    def values(self, rows: slice) -> Tensor:
        """Return rows [p, M] in floating point."""
        ...

    def copy(self) -> Stream:
        """Return a stream of the same numbers in memory of its own."""
        ...

    def unwatched(self) -> Stream:
        """Return the stream without its watch: undoing gives back numbers that were in range."""
        ...

    def add_(self, rows: slice, y_PM: Tensor, sign: int) -> None:
        """Add ±y to rows, in place; ``y`` may be overwritten."""
        ...

    def add_product_(self, rows: slice, a_PK: Tensor, b_KM: Tensor, sign: int) -> None:
        """Add ±a·b to rows, in place."""
        ...


@dataclass(frozen=True, eq=False)
class FloatStream:
    """A stream of floats, as in the paper; undoing an addition leaves a rounding error."""

    tensor: Tensor

    norm_scale: ClassVar[float] = 1.0

    def copy(self) -> FloatStream:
        """Return a stream of the same numbers in memory of its own."""
        return FloatStream(self.tensor.clone())

    def unwatched(self) -> FloatStream:
        """Return the stream itself: a NaN or an infinity in it shows without a watch."""
        return self

    def stored(self, rows: slice) -> Tensor:
        """Return the rows themselves."""
        return self.tensor[rows]

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


class StreamRangeError(OverflowError):
    """A value that fixed-point numbers can't hold was put into a reversible stream."""


@dataclass(frozen=True, eq=False)
class RangeWatch:
    """Watches what enters the fixed-point streams of one forward pass.

    An integer made of a NaN or of a number out of range is a plausible number, and integers that
    overflow wrap around and may wrap back: afterwards nothing shows what happened. So the largest
    magnitude is noted before numbers are converted, and again after they were added. It stays on
    the device: no sublayer waits for the host.
    """

    places: tuple[str, ...]
    """What puts numbers into the streams, in order."""
    reached_units: Tensor
    """The largest magnitude so far, a scalar of the streams' floating-point dtype."""
    n_in_range: Tensor
    """How many places have put in all they have, and nothing out of range; an int64 scalar."""

    @staticmethod
    def over(places: Sequence[str], like: Tensor) -> RangeWatch:
        """Make a watch over streams of the dtype and on the device of ``like``."""
        _unit(like.dtype)
        n_in_range = torch.zeros((), dtype=torch.int64, device=like.device)
        return RangeWatch(tuple(places), like.new_zeros(()), n_in_range)

    @property
    def limit(self) -> float:
        """Magnitudes from here on are refused: half of the streams' range, so that the sum of two
        numbers below it can't wrap around."""
        unit, limit_units = _unit(self.reached_units.dtype)
        return limit_units * unit

    def note(self, units: Tensor) -> None:
        """Note the largest magnitude of numbers given in units; a NaN stays noted for good."""
        low, high = units.aminmax()
        dtype = self.reached_units.dtype
        largest = torch.maximum(low.to(dtype).neg_(), high.to(dtype))
        torch.maximum(self.reached_units, largest, out=self.reached_units)

    def next_place(self) -> None:
        """Note that the current place has put in all it has."""
        limit = _unit(self.reached_units.dtype)[1]
        if fuses_rows(self.reached_units, 1):
            count_in_range_(self.n_in_range, self.reached_units, limit)
        else:
            self.n_in_range.add_(self._in_range())

    def guard(self) -> Tensor:
        """Return 0 if all was in range, else NaN: added to a result, it makes a wrong one NaN."""
        return torch.where(self._in_range(), 0.0, math.nan).to(self.reached_units.dtype)

    def check(self) -> None:
        """Read the device's verdict. Raises StreamRangeError, naming the first place that put in a
        NaN or a number out of range.
        """
        # Fake tensors have no values to check.
        if type(self.reached_units) is not Tensor:
            return
        n_in_range = int(self.n_in_range)
        if n_in_range == len(self.places):
            return
        largest = float(self.reached_units) * _unit(self.reached_units.dtype)[0]
        what = "a NaN" if math.isnan(largest) else f"a value beyond ±{self.limit:g}"
        raise StreamRangeError(
            f"{self.places[n_in_range]} put {what} into a reversible stream (largest magnitude "
            f"of the pass: {largest:.4g}); fixed-point streams hold less than ±{self.limit:g}: "
            "look for what grew, or set streams = 'float'"
        )

    def _in_range(self) -> Tensor:
        # False for NaN. Less, not at most: integers near the limit may round up to it as floats.
        return self.reached_units < _unit(self.reached_units.dtype)[1]


def _unit(dtype: torch.dtype) -> tuple[float, float]:
    """Return the unit that a fixed-point stream of such floats counts, and the magnitude in units
    from which on numbers are refused. Raises ValueError for float16, which can't hold so many.
    """
    if dtype is torch.float16:
        raise ValueError(
            "parameters of float16 allow no fixed-point streams: set streams = 'float', or keep "
            "parameters of float32, bfloat16 or float64"
        )
    return (2.0**-44, 2.0**62) if dtype == torch.float64 else (2.0**-20, 2.0**30)


@dataclass(frozen=True, eq=False)
class FixedStream:
    """A stream of integers that count a small unit, so that adding and subtracting are exact.

    LSH attention makes exactness matter. A token whose vector lies on the border of two buckets
    changes its bucket by the last bit; that shifts the chunk borders of every bucket between, and
    the error spreads. Integers of the same size as the floats (32 bits for float32 and bfloat16
    sublayers, 64 for float64) undo every addition to the bit. So the recomputation sees the very
    vectors that the forward pass saw, and no buckets need to be stored.

    The unit is 2⁻²⁰ (range ±2048) in 32 bits and 2⁻⁴⁴ (range ±524288) in 64.
    """

    tensor: Tensor
    """The rows [P, M], counted in units."""
    float_dtype: torch.dtype
    """The dtype of the numbers that enter and leave."""
    watch: RangeWatch | None
    """What is told of all that enters."""

    @staticmethod
    def of(x_PM: Tensor, watch: RangeWatch | None = None) -> FixedStream:
        """Open a stream of the numbers in x. Raises ValueError for float16."""
        scale = 1 / _unit(x_PM.dtype)[0]
        if fuses_rows(x_PM, x_PM.shape[-1]):
            stored = torch.empty_like(x_PM, dtype=torch.int32)
            reached = None if watch is None else watch.reached_units
            add_units_(stored, x_PM, scale, 1, reached, is_open=False)
            return FixedStream(stored, x_PM.dtype, watch)
        units = (x_PM * scale).round_()
        if watch is not None:
            watch.note(units)
        integers = torch.int64 if x_PM.dtype == torch.float64 else torch.int32
        tensor = torch.empty_like(x_PM, dtype=integers)
        return FixedStream(tensor.copy_(units), x_PM.dtype, watch)

    @property
    def norm_scale(self) -> float:
        """How many units are one."""
        return 1 / _unit(self.float_dtype)[0]

    @property
    def _fused(self) -> bool:
        wide = self.float_dtype is torch.float32
        return wide and fuses_rows(self.tensor, self.tensor.shape[-1])

    def copy(self) -> FixedStream:
        """Return a stream of the same numbers in memory of its own."""
        return replace(self, tensor=self.tensor.clone())

    def unwatched(self) -> FixedStream:
        """Return a stream over the same memory whose additions are not watched any more."""
        return replace(self, watch=None)

    def stored(self, rows: slice) -> Tensor:
        """Return the rows, counted in units, as integers."""
        return self.tensor[rows]

    def read(self, rows: slice) -> Tensor:
        """Return the rows, counted in units."""
        return self.tensor[rows].to(self.float_dtype)

    def values(self, rows: slice) -> Tensor:
        """Return the rows in floating point."""
        return self.read(rows).mul_(1 / self.norm_scale)

    def add_(self, rows: slice, y_PM: Tensor, sign: int) -> None:
        """Add ±y, rounded to the unit, to rows."""
        if self._fused:
            reached = None if self.watch is None else self.watch.reached_units
            add_units_(self.tensor[rows], y_PM, self.norm_scale, sign, reached)
            return
        self._add_units_(rows, (y_PM.to(self.float_dtype) * self.norm_scale).round_(), sign)

    def add_product_(self, rows: slice, a_PK: Tensor, b_KM: Tensor, sign: int) -> None:
        """Add ±a·b, rounded to the unit, to rows."""
        if a_PK.dtype != self.float_dtype or self._fused:
            self.add_(rows, a_PK @ b_KM, sign)
            return
        # A power of two: scaling the small factor gives the same bits as scaling the product.
        self._add_units_(rows, torch.mm(a_PK, b_KM * self.norm_scale).round_(), sign)

    def _add_units_(self, rows: slice, units_PM: Tensor, sign: int) -> None:
        if self.watch is not None:
            self.watch.note(units_PM)
        sums_PM = self.tensor[rows].add_(units_PM.to(self.tensor.dtype), alpha=sign)
        if self.watch is not None:
            self.watch.note(sums_PM)
