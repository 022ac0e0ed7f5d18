"""What CPU operators hold of random draws, Fourier transforms and factorisations of matrices: asked
of the kernels, as is done for convolutions.

LAPACK says by shape how much it works in. A matrix exponential also goes by the matrix' norm: the
matrix of ones that is tried has a large one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.operators_cpu_nn import asked_of_batch
from reformer_bench.measure.fake.operators_cpu_parts import InternalBytes

_aten = torch.ops.aten

_OF_MATRICES = (
    *("linalg_inv_ex", "_linalg_solve_ex", "linalg_qr", "_linalg_svd", "_linalg_eigh"),
    *("_linalg_det", "_linalg_slogdet", "linalg_lu", "lu_unpack", "linalg_matrix_exp"),
    *("cholesky_inverse", "cholesky_solve", "linalg_solve_triangular", "linalg_ldl_factor_ex"),
)


def _normal(out: Any, /, mean: Any, std: Any = 1.0, *rest: Any, **kwargs: Any) -> int:
    """Count a draw whose mean, deviation or both are tensors; with neither, nothing is held."""
    of_tensors = {
        (True, False): _aten.normal.Tensor_float,
        (False, True): _aten.normal.float_Tensor,
        (True, True): _aten.normal.Tensor_Tensor,
    }
    overload = of_tensors.get((isinstance(mean, Tensor), isinstance(std, Tensor)))
    if overload is None:
        return 0
    return asked_of_batch(overload, 2)(out, mean, std, *rest, **kwargs)


def _transformed(packet: Any) -> InternalBytes:
    of_batch, as_it_is = asked_of_batch(packet, 1), asked_of_batch(packet, 99)

    def count(out: Any, /, x: Tensor, dims: list[int], *rest: Any, **kwargs: Any) -> int:
        """Count a Fourier transform, whose first dimension is a batch unless it is transformed."""
        is_batch = 0 not in [dim % x.dim() for dim in dims]
        return (of_batch if is_batch else as_it_is)(out, x, dims, *rest, **kwargs)

    return count


FORMULAS: dict[Any, InternalBytes] = {
    **{p: asked_of_batch(p, 3) for p in (getattr(_aten, name) for name in _OF_MATRICES)},
    _aten.multinomial: asked_of_batch(_aten.multinomial, 2),
    _aten.normal: _normal,
    **{p: _transformed(p) for p in (_aten._fft_r2c, _aten._fft_c2r, _aten._fft_c2c)},
    _aten.isin: asked_of_batch(_aten.isin, 99),
}
