"""Autograd's sums of gradients: out of place on fake tensors, in place on real ones.

Where a tensor is used twice, autograd adds the two gradients up. It adds the later one into the
earlier one if nobody else holds that, but never while a dispatch mode looks on (input_buffer.cpp,
accumulate and can_accumulate_inplace). A prediction has to do what the real run does.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from reformer_bench.measure.fake.by_operator import by_operator

_ENGINE = "_engine_run_backward"


class DispatchMode(TorchDispatchMode):
    """A dispatch mode that torch calls directly, without the wrappers that keep its compiler away:
    they take longer than an operator is followed, and lie between a mode and who calls it.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


Holders = tuple[int, int, int]
"""How many references hold a tensor, its storage and its Python object."""


def adds_in_place(args: tuple[Any, ...], single: Holders) -> tuple[Tensor, Tensor] | None:
    """Return an addition's operands if autograd would add the second into the first, else None.

    ``single`` are the holders of a gradient that only autograd holds. It is to be called by
    ``__torch_dispatch__`` itself, with that method's own arguments.
    """
    if len(args) != 2 or torch.is_grad_enabled() or not called_by_engine():
        return None
    # Counted before anything else holds the tensors by a name of its own.
    if _holders(args)[0] != single:
        return None
    into, other = args
    if into.is_contiguous() or is_non_overlapping_and_dense_or_false(into):
        return into, other
    return None


_aten = torch.ops.aten
_INTO_ZEROS = {
    _aten.index_put.default: _aten.index_put_.default,
    _aten.scatter.src: _aten.scatter_.src,
    _aten.scatter_add.default: _aten.scatter_add_.default,
    _aten.masked_scatter.default: _aten.masked_scatter_.default,
}


@by_operator
def _into_zeros(operator: Any) -> Any:
    return _INTO_ZEROS.get(operator)


def writes_in_place(operator: Any) -> Any:
    """Return the operator that autograd runs on real tensors: where it spreads the gradients of
    chosen elements over zeros, it writes into the zeros, but not into those of a subclass
    (FunctionsManual.cpp, index_backward, gather_backward, value_selecting_reduction_backward,
    masked_select_backward).

    It is to be called by ``__torch_dispatch__`` itself.
    """
    into = _into_zeros(operator)
    if into is None or torch.is_grad_enabled() or not called_by_engine():
        return operator
    return into


def called_by_engine() -> bool:
    """Say whether autograd itself, and no Python code, has called the operator.

    It is to be called by a function that ``__torch_dispatch__`` calls.
    """
    caller = sys._getframe(2).f_back
    return caller is not None and caller.f_code.co_name == _ENGINE


def _holders(args: tuple[Any, ...]) -> list[Holders]:
    return [
        (
            tensor._use_count(),
            torch._C._storage_Use_Count(tensor.untyped_storage()._cdata),
            sys.getrefcount(tensor),
        )
        for tensor in args
    ]


@functools.cache
def single_holder() -> Holders:
    """Count the holders that a dispatch mode sees of a gradient that only autograd holds.

    It has to be called outside any mode and any backward pass.
    """
    seen: list[Holders] = []

    class Look(DispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func is torch.ops.aten.add.Tensor:
                seen.extend(_looked_at(args))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad(), FakeTensorMode(), Look():  # type: ignore[no-untyped-call]
        x = torch.ones(2, requires_grad=True) * 2
        (torch.sin(x) * torch.cos(x)).sum().backward()
    assert len(seen) == 2, f"expected one sum of two gradients, saw {seen}"
    assert seen[0] == seen[1], f"expected two gradients held alike, saw {seen}"
    return seen[0]


def _looked_at(args: tuple[Any, ...]) -> list[Holders]:
    # A frame of its own, so that it holds as many references as ``adds_in_place`` does.
    return _holders(args)
