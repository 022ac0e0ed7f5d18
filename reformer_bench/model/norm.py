"""Layer normalisation of rows, forward and backward, without an autograd graph: by PyTorch's
operators, or by fused programs straight from what streams store.

P rows, M model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from reformer_bench.model.fused import ColumnSums, normalise_rows, normalise_rows_backward
from reformer_bench.model.tensors import Tensors


class Norm(nn.Module):
    """The weight and bias of a layer normalisation over ``width`` features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, epsilon: float) -> Tensor:
        """Return normalised x [..., width], under plain autograd."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, epsilon)


class Normed(NamedTuple):
    """Normalised rows, with what their backward pass needs."""

    h_PM: Tensor
    x_PM: Tensor
    mean_P1: Tensor
    rstd_P1: Tensor
    scale: float


class NormedStreams(NamedTuple):
    """Normalised rows of streams side by side, in the dtype that computes, with what their backward
    pass needs.
    """

    h_PW: Tensor
    stored: tuple[Tensor, ...]
    """The rows of each stream as it stores them, [P, M]."""
    mean_P: Tensor
    rstd_P: Tensor
    scale: float


def normalise(params: Tensors, x_PM: Tensor, epsilon: float, scale: float) -> Normed:
    """Return the layer normalisation of x / scale, given x, by a module's ``norm``.

    Normalisation divides any common factor out; only epsilon has to follow it.
    """
    h, mean, rstd = torch.native_layer_norm(
        x_PM,
        (x_PM.shape[-1],),
        params["norm.weight"],
        params["norm.bias"],
        epsilon * scale * scale,
    )
    return Normed(h, x_PM, mean, rstd, scale)


def normalise_backward(params: Tensors, grads: Tensors, dh_PM: Tensor, saved: Normed) -> Tensor:
    """Return the gradient [P, M] with respect to x / scale, given that of the normalised rows; add
    those of weight and bias to ``grads``, in place.
    """
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        dh_PM,
        saved.x_PM,
        (dh_PM.shape[-1],),
        saved.mean_P1,
        saved.rstd_P1,
        params["norm.weight"],
        params["norm.bias"],
        [True, True, True],
    )
    grads["norm.weight"].add_(dweight)
    grads["norm.bias"].add_(dbias)
    return cast(Tensor, dx if saved.scale == 1.0 else dx.mul_(saved.scale))


def normalise_streams(
    params: Tensors, stored: Sequence[Tensor], epsilon: float, scale: float, dtype: torch.dtype
) -> NormedStreams:
    """Return the layer normalisation of x / scale in a dtype, x being the rows of streams side by
    side as they are stored, by fused programs.
    """
    weight, bias = params["norm.weight"], params["norm.bias"]
    # Programs count on rows without gaps, which somebody's input may have.
    stored = tuple(x_PM.contiguous() for x_PM in stored)
    h, mean, rstd = normalise_rows(stored, weight, bias, epsilon * scale * scale, dtype)
    return NormedStreams(h, stored, mean, rstd, scale)


def normalise_streams_backward(
    params: Tensors,
    grads: Tensors,
    dh_PW: Tensor,
    saved: NormedStreams,
    into: Sequence[Tensor],
    *,
    add: bool,
) -> list[ColumnSums]:
    """Write, or with ``add`` add, the gradients of the streams to ``into``, given that of the
    normalised rows, and return those of weight and bias, which belong into ``grads``.
    """
    return normalise_rows_backward(
        dh_PW,
        saved.stored,
        (saved.mean_P, saved.rstd_P),
        params["norm.weight"],
        saved.scale,
        into,
        (grads["norm.weight"], grads["norm.bias"]),
        add=add,
    )
