"""Layer normalisation of rows, forward and backward, without an autograd graph.

P rows, M model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_PIECE_BYTES = 8 * 2**20
_MOST_PIECES = 16


def even_pieces(n_rows: int, n_pieces: int) -> Iterator[slice]:
    """Return ``n_pieces`` slices (fewer if there are fewer rows) that cover the rows in order."""
    size = -(-n_rows // min(n_pieces, n_rows))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def small_pieces(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Return slices of about 8 MiB, at most 16 of them.

    The bound keeps the number of operators from growing with length; a piece is then a sixteenth of
    a tensor that is there anyway.
    """
    wanted = -(-n_rows * row_bytes // _PIECE_BYTES)
    return even_pieces(n_rows, max(1, min(wanted, _MOST_PIECES)))


class Normed(NamedTuple):
    """Normalised rows, with what their backward pass needs."""

    h_PM: Tensor
    x_PM: Tensor
    mean_P1: Tensor
    rstd_P1: Tensor


def normalise(
    x_PM: Tensor, weight_M: Tensor, bias_M: Tensor, epsilon: float, scale: float = 1.0
) -> Normed:
    """Return the layer normalisation of x / scale, given x.

    Normalisation divides any common factor out; only epsilon has to follow it.
    """
    h, mean, rstd = torch.native_layer_norm(
        x_PM, (x_PM.shape[-1],), weight_M, bias_M, epsilon * scale * scale
    )
    return Normed(h, x_PM, mean, rstd)


def normalise_backward(
    dh_PM: Tensor,
    saved: Normed,
    weight_M: Tensor,
    bias_M: Tensor,
    dweight_M: Tensor,
    dbias_M: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """Return the gradient [P, M] with respect to x / scale; add those of weight and bias
    in place.
    """
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        dh_PM,
        saved.x_PM,
        (dh_PM.shape[-1],),
        saved.mean_P1,
        saved.rstd_P1,
        weight_M,
        bias_M,
        [True, True, True],
    )
    dweight_M.add_(dweight)
    dbias_M.add_(dbias)
    return dx if scale == 1.0 else dx.mul_(scale)
