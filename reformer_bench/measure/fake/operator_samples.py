"""Samples of CPU operators, and a comparison of what each holds inside with the table's formula.

They are run for real, on tensors whose values decide nothing: on few elements, on more than one
thread takes, transposed, of other dtypes, in place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.operators_cpu import internal_bytes_on_cpu
from reformer_bench.measure.fake.operators_cpu_elementwise import (
    OF_ONE,
    WITH_NUMBERS_KEPT,
    WITH_NUMBERS_WRAPPED,
)
from reformer_bench.schema.errors import InputError

_aten = torch.ops.aten
_SHAPES = ((3, 5), (200, 300))
"""Of few elements, and of more than one thread takes."""

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class OperatorComparison:
    """What one operator held on one sample, beside its result, and what the table says."""

    operator: str
    arguments: str
    """Dtypes, shapes and, where they don't lie in a row, strides."""
    expected_bytes: int
    measured_bytes: int

    @property
    def differs(self) -> bool:
        """Whether the table is wrong on this machine."""
        return self.expected_bytes != self.measured_bytes


def compare_operators(names: Collection[str] = ()) -> Iterator[OperatorComparison]:
    """Run each sample on this machine, with PyTorch's present number of threads.

    With names, such as ``cumsum`` or ``aten.cumsum.default``, only samples of these operators.
    Raises InputError for a name of which there is no sample.
    """
    missing = set(names)
    with _disable_current_modes(), torch.no_grad():
        for operator, arguments in _samples():
            known_as = {
                str(operator),
                str(operator.overloadpacket),
                operator.overloadpacket.__name__,
            }
            if names and known_as.isdisjoint(names):
                continue
            missing -= known_as
            yield _compared(operator, arguments)
    if missing:
        raise InputError(f"no sample of operator {', '.join(sorted(missing))}")


def _compared(operator: Any, arguments: Arguments) -> OperatorComparison:
    operator(*_copied(arguments))  # What the first call makes once only isn't the operator's.
    arguments = _copied(arguments)
    with record_cpu_allocations() as recording, recording.phase("forward"):
        out = operator(*arguments)
    alive = recording.timeline.live_bytes
    held = int(alive.max()) - int(alive[-1]) if len(alive) else 0
    expected = internal_bytes_on_cpu(operator, out, arguments, {})
    return OperatorComparison(str(operator), _described(arguments), expected, held)


def _copied(arguments: Arguments) -> Arguments:
    """Copy tensors, which an operator may write to, as they lie."""

    def copied(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.clone()
        return list(map(copied, x)) if isinstance(x, list) else x

    return tuple(map(copied, arguments))


def _described(x: Any) -> str:
    if isinstance(x, Tensor):
        strides = "" if x.is_contiguous() else f" by {list(x.stride())}"
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}{strides}"
    if isinstance(x, list | tuple):
        return ", ".join(map(_described, x)) if isinstance(x, tuple) else f"[{_described((*x,))}]"
    return str(x)


def _samples() -> Iterator[tuple[Any, Arguments]]:
    yield from _elementwise_samples()
    for shape in _SHAPES:
        x = torch.ones(shape)
        yield from _reduction_samples(x)
        yield from _index_samples(x)
        yield from _loss_samples(x)
        yield from _product_samples(x)
        yield from _list_samples(x)
        yield from _asked_samples(x)


def _elementwise_samples() -> Iterator[tuple[Any, Arguments]]:
    for shape in _SHAPES:
        x = torch.full(shape, 0.5)
        half, whole = x.bfloat16(), torch.ones(shape, dtype=torch.int64)
        for name in OF_ONE:
            yield from _callable(f"{name}.default", ((x,), (half,), (whole,)))
            yield from _callable(f"{name}_.default", ((x,),))
        for name in WITH_NUMBERS_WRAPPED:
            pairs = ((x, x), (x, half), (half, x[0]), (whole, x), (whole, whole), (x, x[0, 0]))
            numbers = ((x, 2.0), (half, 2.0), (whole, 2))
            yield from _callable(f"{name}.Tensor", (*pairs, *numbers))
            yield from _callable(f"{name}.Scalar", numbers)
            yield from _callable(f"{name}.default", pairs)
            yield from _callable(f"{name}_.Tensor", ((x, half), (half, x), (x, 2.0)))
        for name in WITH_NUMBERS_KEPT:
            samples = ((half, half), (x, 0.5), (whole, 1), (whole, 0.5), (x, half), (half, x))
            yield from _callable(f"{name}.default", samples)
            yield from _callable(f"{name}.Tensor", ((x, half), (half, x)))
        yield from (
            (_aten.div.Tensor, pair) for pair in ((x, 2.0), (whole, whole), (whole, 3), (x, half))
        )
        yield _aten.pow.Tensor_Scalar, (whole, 0.5)
        yield _aten.pow.Scalar, (2.0, x)
        yield _aten.pow.Tensor_Tensor, (x, half)
        yield _aten.addcmul.default, (x, x, half)
        yield _aten.isinf.default, (x,)
        yield _aten.deg2rad.default, (x,)
        yield _aten.where.self, (x > 0, x, half)
        yield _aten.where.self, (x > 0, x, torch.tensor(1.0, dtype=torch.float64))
        yield _aten.where.ScalarOther, (x > 0, x, 1.0)


def _callable(name: str, samples: Any) -> Iterator[tuple[Any, Arguments]]:
    """Yield the samples that an operator takes; of those that its arguments don't fit, none."""
    packet, overload = name.split(".")
    operator = getattr(getattr(_aten, packet, None), overload, None)
    if operator is None:
        return
    for arguments in samples:
        try:
            operator(*_copied(arguments))
        except (RuntimeError, NotImplementedError):
            continue
        yield operator, arguments


def _reduction_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    half, whole, mask = x.bfloat16(), x.long(), x > 0
    cube = half.unsqueeze(0).expand(2, *x.shape).contiguous().transpose(1, 2)
    for y in (x, half, whole, mask):
        for operator in (_aten.sum, _aten.prod, _aten.any, _aten.all):
            yield operator.default, (y,)
        yield _aten.sum.dim_IntList, (y, [0])
        yield _aten.cumsum.default, (y, 1)
        yield _aten.count_nonzero.dim_IntList, (y, [1])
    yield _aten.sum.dim_IntList, (cube, [0, 1])
    yield _aten.sum.dim_IntList, (cube, [0, 2])
    for y in (x, half):
        yield _aten.mean.default, (y,)
        yield _aten.mean.dim, (y, [1])
        yield _aten.amax.default, (y, [])
        yield _aten.logsumexp.default, (y, [1])
        yield _aten.linalg_vector_norm.default, (y,)
        yield _aten.linalg_vector_norm.default, (y[0, 0], 0)
        yield _aten.std.correction, (y,)
        yield _aten.var.correction, (y, [1])
        yield _aten.sort.default, (y,)
        yield _aten.sort.default, (y, 0)
        yield _aten.topk.default, (y, 2)
        yield _aten.kthvalue.default, (y, 2)
        yield _aten.median.default, (y,)
        yield _aten.median.dim, (y.t(), 1)
        yield _aten.argmax.default, (y,)
        yield _aten.argmax.default, (y.t(),)
        yield _aten._softmax.default, (y, 1, False)
        yield _aten._safe_softmax.default, (y, 1)
    yield _aten.dist.default, (x, x)


def _index_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    rows, columns = x.shape
    places = torch.zeros(rows, columns, dtype=torch.int64)
    few = torch.zeros(3, dtype=torch.int64)
    expanded = few[:, None].expand(3, columns)
    for y in (x, x.bfloat16()):
        some = y[:3]
        yield _aten.clone.default, (y.t().contiguous().t(),)
        yield _aten.copy_.default, (y, y.t().contiguous().t())
        yield _aten.cat.default, ([x, y],)
        yield _aten.repeat.default, (y, [2, 1, 3])
        yield _aten.roll.default, (y, [1, 1], [0, 1])
        yield _aten.roll.default, (y.t(), [1])
        yield _aten.tril.default, (y.expand(2, rows, columns),)
        yield _aten.unfold_backward.default, (y.unfold(1, 3, 1).contiguous(), [*x.shape], 1, 3, 1)
        yield _aten.index.Tensor, (y, [few])
        yield _aten.index.Tensor, (y, [few.int()])
        yield _aten.index_put_.default, (y, [few.int()], some, True)
        yield _aten.index_select.default, (y, 0, few)
        yield _aten.index_add.default, (y, 0, few, some)
        yield _aten.gather.default, (y, 0, places)
        yield _aten.gather.default, (y, 0, places.int())
        yield _aten.gather.default, (y, 0, expanded)
        yield _aten.scatter.src, (y, 0, places, y)
        yield _aten.scatter_add.default, (y, 0, places, y)
        yield _aten.scatter_add.default, (y, 0, expanded, some)
        yield _aten.scatter_reduce.two, (y, 0, places, y, "mean")
        yield _aten.masked_fill.Scalar, (y, x > 0, 1.0)
        yield _aten.masked_scatter.default, (y, x > 0, y)
        yield _aten.masked_scatter_backward.default, (y, x > 0, [x.numel()])
        yield _aten.native_dropout.default, (y, 0.5, True)
        yield _aten.native_dropout_backward.default, (y, x > 0, 2.0)
    yield _aten.bucketize.Tensor, (x.t(), torch.arange(10.0))
    yield _aten.randperm.default, (rows,)


def _loss_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    for y in (x, x.bfloat16()):
        for reduction in (0, 1, 2):
            for operator in (_aten.mse_loss, _aten.smooth_l1_loss, _aten.huber_loss):
                yield operator.default, (y, y, reduction)
            yield _aten.soft_margin_loss.default, (y, y, reduction)
            yield _aten.binary_cross_entropy.default, (y, y, None, reduction)
            logits = _aten.binary_cross_entropy_with_logits.default
            yield logits, (y, y, None, None, reduction)
            yield logits, (y, y, None, y[0], reduction)
            target = torch.zeros(y.shape[0], dtype=torch.int64)
            yield _aten.nll_loss_forward.default, (y, target, None, reduction, -100)
        one = torch.ones((), dtype=y.dtype)
        yield _aten.soft_margin_loss_backward.default, (one, y, y, 1)
        yield _aten.binary_cross_entropy_backward.default, (one, y, y, None, 1)


def _product_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    yield _aten.mm.default, (x, x.t())
    yield _aten.mv.default, (x, x[0])
    yield _aten.bmm.default, (x.expand(2, *x.shape), x.t().expand(2, *x.t().shape))
    half = x.bfloat16()
    yield _aten.mm.default, (half, half.t())
    yield _aten.addmm.default, (half[:, 0], half, half.t())


def _list_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    tensors = [x, x.bfloat16(), x[0]]
    yield _aten._foreach_add_.Scalar, (tensors, 1.0)
    yield _aten._foreach_mul_.Scalar, (tensors, 0.9)
    yield _aten._foreach_div_.ScalarList, (tensors, [1.0, 2.0, 3.0])
    yield _aten._foreach_sqrt.default, (tensors,)
    yield _aten._foreach_addcmul_.Scalar, (tensors, tensors, tensors, 0.1)
    yield _aten._foreach_zero_.default, (tensors,)


def _asked_samples(x: Tensor) -> Iterator[tuple[Any, Arguments]]:
    n = min(x.shape[0], 40)
    square = torch.eye(n).expand(3, n, n).contiguous()
    for y in (x, x.double()):
        yield _aten.multinomial.default, (y, 2)
        yield _aten.multinomial.default, (y, 2, True)
        yield _aten.normal.Tensor_float, (y,)
        yield _aten.normal.Tensor_Tensor, (y, y)
        yield _aten._fft_r2c.default, (y, [1], 0, True)
        yield _aten._fft_c2r.default, (y + 0j, [1], 0, 2 * y.shape[1] - 2)
        yield _aten._fft_c2c.default, (y + 0j, [0, 1], 0, True)
        yield _aten.isin.Tensor_Tensor, (y, y[0])
    yield _aten.linalg_inv_ex.default, (square,)
    yield _aten._linalg_solve_ex.default, (square, square[..., :1])
    yield _aten.linalg_qr.default, (square,)
    yield _aten._linalg_svd.default, (square,)
    yield _aten._linalg_eigh.default, (square,)
    yield _aten._linalg_det.default, (square,)
    yield _aten.linalg_lu.default, (square,)
    yield _aten.cholesky_inverse.default, (square,)
    yield _aten.cholesky_solve.default, (square, square)
