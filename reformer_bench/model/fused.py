"""The fused programs of rows as functions of tensors; each is one launch.

P rows, M width of a stream, W width of normalised rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reformer_bench.model.programs import fuses, launch

_PROGRAMS = f"{__package__}.row_programs"
PARTS = 512
"""How many programs share the rows where sums over all rows are wanted: enough to fill a GPU, few
enough that their sums are few beside the rows."""
COLUMNS = 1024
"""How many columns a program takes at most that needn't see whole rows."""
SUMS = (32, 64)
"""How many parts and columns a program adds up at a time."""
_ROWS_OF_A_PART = 32
_MOST_SUMS = 4
NUMBERS = 4096
"""How many numbers of a stream a program adds to."""
_WIDEST = 4096
"""The widest rows that the registers of a program hold."""
_STORED = (torch.float32, torch.int32)


class ColumnSums(NamedTuple):
    """Sums of a tensor's rows that are still to be added up over the programs that made them."""

    parts: Tensor
    """The sums [parts, W], float32."""
    into: Tensor
    """Where their sum belongs, [W]."""


def fuses_rows(x_PM: Tensor, width: int) -> bool:
    """Say whether the programs take rows like ``x``, as a stream stores them, of a width in all."""
    return x_PM.dtype in _STORED and width <= _WIDEST and fuses(x_PM.device)


def warps_of(block: int) -> int:
    """Return how many warps a program of rows of that width has: 8 numbers a thread, as far as 16
    warps go.
    """
    return min(16, max(4, block // 256))


def block_of(width: int) -> int:
    """Return the power of two that covers a width."""
    return 1 << (width - 1).bit_length()


def normalise_rows(
    stored: Sequence[Tensor], weight: Tensor, bias: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised rows [P, W] in a dtype, and the mean and the reciprocal deviation of each,
    [P] float32.

    ``stored`` are the rows [P, M] of one stream, or of two side by side, float32 or int32.
    """
    n_rows, width = stored[0].shape
    like = weight.new_empty
    h = like(n_rows, weight.shape[0], dtype=dtype)
    mean, rstd = like(n_rows), like(n_rows)
    block = block_of(weight.shape[0])
    launch(
        _PROGRAMS,
        "normalise_rows",
        (n_rows,),
        warps_of(block),
        *(stored[0], stored[-1], weight, bias, h, mean, rstd),
        *(width, epsilon),
        SECOND=len(stored) == 2,
        BLOCK=block,
    )
    return h, mean, rstd


def normalise_rows_backward(
    dh_PW: Tensor,
    stored: Sequence[Tensor],
    saved: tuple[Tensor, Tensor],
    weight: Tensor,
    factor: float,
    into: Sequence[Tensor],
    sums_into: tuple[Tensor, Tensor],
    *,
    add: bool,
) -> list[ColumnSums]:
    """Write, or with ``add`` add, the gradient of the rows times ``factor`` to those of the
    streams, and return the sums of the gradients of weight and bias.

    ``saved`` are mean and reciprocal deviation; ``sums_into`` says where the sums belong.
    """
    n_rows, width = stored[0].shape
    n_parts, block = _parts(n_rows), block_of(weight.shape[0])
    sums = weight.new_empty(n_parts, 2, weight.shape[0])
    launch(
        _PROGRAMS,
        "normalise_rows_backward",
        (n_parts,),
        warps_of(block),
        *(dh_PW, stored[0], stored[-1], weight, *saved, into[0], into[-1], sums),
        *(n_rows, width, factor),
        moved_bytes=sum(x.nbytes for x in (dh_PW, *stored, weight, *saved, sums))
        + (2 if add else 1) * sum(x.nbytes for x in into),
        SECOND=len(stored) == 2,
        ADD=add,
        BLOCK=block,
    )
    return [ColumnSums(*pair) for pair in zip(sums.unbind(1), sums_into, strict=True)]


def sum_columns(x_PW: Tensor, into: Tensor, dtype: torch.dtype) -> tuple[Tensor, ColumnSums]:
    """Return rows in a dtype, x itself where it has that, and their sums."""
    narrow = x_PW if x_PW.dtype == dtype else torch.empty_like(x_PW, dtype=dtype)
    sums = _by_columns("sum_columns", x_PW, narrow, COPY=narrow is not x_PW)
    return narrow, ColumnSums(sums, into)


def activate_backward_(da_PW: Tensor, u_PW: Tensor, into: Tensor, activation: str) -> ColumnSums:
    """Write the gradient before an activation over that behind it, and return its rows' sums."""
    gelu = activation == "gelu"
    moved = 2 * da_PW.nbytes + u_PW.nbytes
    sums = _by_columns("activate_backward", da_PW, u_PW, moved_bytes=moved, GELU=gelu)
    return ColumnSums(sums, into)


def add_column_sums(sums: Sequence[ColumnSums], *, fresh: bool) -> None:
    """Add up at most four kinds of sums of as many parts each, and add each to where it belongs, or
    with ``fresh`` write it there.
    """
    parts, block = SUMS
    # Those that are missing are of no width, and never looked at.
    padded = [*sums, *[sums[-1]] * (_MOST_SUMS - len(sums))]
    widths = [len(one.into) for one in sums] + [0] * (_MOST_SUMS - len(sums))
    launch(
        _PROGRAMS,
        "add_column_sums",
        (sum(-(-width // block) for width in widths),),
        4,
        *(one.parts for one in padded),
        *(one.into for one in padded),
        *(one.parts.stride(0) for one in padded),
        *widths,
        len(sums[0].parts),
        moved_bytes=sum(x.parts.nbytes + (1 if fresh else 2) * x.into.nbytes for x in sums),
        FRESH=fresh,
        PARTS=parts,
        BLOCK=block,
    )


def add_units_(
    stream_PM: Tensor,
    y_PM: Tensor,
    units_of_one: float,
    sign: int,
    reached: Tensor | None,
    *,
    is_open: bool = True,
) -> None:
    """Add ±y to rows of a fixed-point stream, int32, rounded to whole units; unless it ``is_open``,
    write them. The largest magnitude, in units, is kept in ``reached``, a float32 scalar.
    """
    n_numbers = stream_PM.numel()
    seen = stream_PM if reached is None else reached.view(torch.int32)
    launch(
        _PROGRAMS,
        "add_units",
        (-(-n_numbers // NUMBERS),),
        4,
        *(stream_PM, y_PM.contiguous(), seen, n_numbers, units_of_one),
        moved_bytes=(2 if is_open else 1) * stream_PM.nbytes + y_PM.nbytes,
        SIGN=sign,
        WATCH=reached is not None,
        OPEN=not is_open,
        BLOCK=NUMBERS,
    )


def count_in_range_(n_in_range: Tensor, reached: Tensor, limit: float) -> None:
    """Add 1 to an int64 scalar where a float32 scalar is below a limit."""
    launch(_PROGRAMS, "count_in_range", (1,), 1, reached, n_in_range, limit)


def pack_weights(
    projections: Sequence[Tensor],
    output: Tensor,
    features: slice,
    d_head: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return, in a dtype, the rows ``features`` of projections [H·D, M], each head's side by side,
    [G·N·D, M], and those columns of an output projection [M, H·D], [M, G·D].
    """
    count, (n_features, width) = len(projections), projections[0].shape
    of_group = features.stop - features.start
    packed = output.new_empty(of_group * count, width, dtype=dtype)
    narrow = output.new_empty(width, of_group, dtype=dtype)
    block = block_of(max(width, of_group))
    launch(
        _PROGRAMS,
        "pack_weights",
        (len(packed) + width,),
        warps_of(block),
        *(projections[0], projections[min(1, count - 1)], projections[-1], output),
        *(packed, narrow, features.start, len(packed), width, n_features, of_group),
        moved_bytes=(packed.numel() + narrow.numel()) * (output.itemsize + dtype.itemsize),
        D=d_head,
        N=count,
        BLOCK=block,
    )
    return packed, narrow


def _parts(n_rows: int) -> int:
    return min(PARTS, -(-n_rows // _ROWS_OF_A_PART))


def _by_columns(
    program: str, x_PW: Tensor, other_PW: Tensor, moved_bytes: int | None = None, **constants: bool
) -> Tensor:
    """Run a program on all rows, a block of columns at a time, and return its parts' sums."""
    n_rows, width = x_PW.shape
    block = min(COLUMNS, block_of(width))
    sums = x_PW.new_empty(_parts(n_rows), width, dtype=torch.float32)
    launch(
        _PROGRAMS,
        program,
        (len(sums), -(-width // block)),
        4,
        *(x_PW, other_PW, sums, n_rows, width),
        moved_bytes=None if moved_bytes is None else moved_bytes + sums.nbytes,
        BLOCK=block,
        **constants,
    )
    return sums
