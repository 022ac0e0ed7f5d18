"""ShapeMemo makes results of operators on fake tensors from what the same shapes gave before.

FakeTensorMode takes about 100 µs an operator, of which working out the result is the least part.
The shapes, strides and aliases of a result follow from those of the arguments; seen once, a result
is made directly.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.fake.by_operator import by_operator

_CPU = torch.device("cpu")
_aten = torch.ops.aten
_VIEWS = frozenset(
    (
        *(_aten.view.default, _aten._unsafe_view.default, _aten.alias.default),
        *(_aten.slice.Tensor, _aten.select.int, _aten.diagonal.default, _aten.unfold.default),
        *(_aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.expand.default),
        *(_aten.unsqueeze.default, _aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims),
        *(_aten.split.Tensor, _aten.split_with_sizes.default, _aten.unbind.int),
    )
)
"""Views of the first argument, which begin as far from its own beginning wherever that is.

They are made of tensors on the device ``meta``: that takes a hundredth of FakeTensorMode's time,
which a loop over positions pays for each. And fake tensors give dimensions of size 1 other strides
than PyTorch does, on which some kernels' copies depend; those on ``meta`` have the real ones."""
_NOT_FIXED = (
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
)


@dataclass(frozen=True, slots=True)
class _Made:
    """How one result is made: as an argument itself, a view of one, or a tensor of its own."""

    argument: int | None
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    """For a view, how far behind the argument's beginning it begins."""
    dtype: torch.dtype = torch.float32
    is_view: bool = False


_Recipe = tuple[type | None, tuple[_Made, ...]]
"""The kind of sequence (None: a single tensor) and its parts."""


@dataclass(slots=True)
class _Learned:
    """What is known of one operator."""

    decided: bool
    """Whether arguments suffice to tell the result."""
    numbers_matter: bool
    """Whether a float argument may decide shapes."""
    offsets_matter: bool
    """Whether a view that it makes may begin at a place of the storage, wherever its argument
    does."""
    is_view: bool
    recipes: dict[Hashable, _Recipe | None] = field(default_factory=dict)
    """By what decides the result; None: not made here."""


@by_operator
def _learned_of(operator: Any) -> _Learned:
    tags = operator.tags
    is_view = operator in _VIEWS
    return _Learned(
        decided=operator.namespace == "aten" and not any(tag in tags for tag in _NOT_FIXED),
        numbers_matter=torch.Tag.pointwise not in tags,
        offsets_matter=operator.is_view and not is_view,
        is_view=is_view,
    )


class ShapeMemo:
    """Runs operators for one FakeTensorMode; what it learns serves the whole process."""

    def __init__(self, mode: FakeTensorMode) -> None:
        # What FakeTensor's constructor writes on each tensor; it takes longer than all else here.
        like = FakeTensor(mode, torch.empty((), device="meta"), _CPU)
        self._attributes = dict(vars(like))
        self._warns_of_data: bool = mode._allow_unsafe_data_ptr_access

    def run(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator, or make its result again."""
        tensors: list[Tensor] = []
        learned = _learned_of(operator)
        key = _key(learned, args, kwargs, tensors)
        if key is None:
            return operator(*args, **kwargs)
        found = learned.recipes.get(key, _UNKNOWN)
        if found is _UNKNOWN and learned.is_view:
            found = learned.recipes[key] = _viewed(operator, args, kwargs)
        if found is _UNKNOWN:
            out = operator(*args, **kwargs)
            learned.recipes[key] = _recipe(learned, out, tensors)
            return out
        if found is None:
            return operator(*args, **kwargs)
        kind, parts = found
        if kind is None:
            return self._make(parts[0], tensors)
        return kind([self._make(part, tensors) for part in parts])

    def _make(self, part: _Made, tensors: list[Tensor]) -> Tensor:
        if part.argument is not None and not part.is_view:
            return tensors[part.argument]
        with torch._C._DisableTorchDispatch():
            if part.argument is None:
                made = torch.empty_strided(part.size, part.stride, dtype=part.dtype, device="meta")
            else:
                made = torch.empty((), dtype=part.dtype, device="meta")
                whole = tensors[part.argument]
                offset = whole.storage_offset() + part.offset
                made.set_(whole.untyped_storage(), offset, part.size, part.stride)
            fake: Tensor = Tensor._make_subclass(
                FakeTensor, made, False, dispatch_device=True, device_for_backend_keys=_CPU
            )
            # As FakeTensor's constructor does with code that reads data.
            if self._warns_of_data:
                torch._C._set_warn_deprecated_on_mutable_data_ptr(fake)
            else:
                torch._C._set_throw_on_mutable_data_ptr(fake)
        vars(fake).update(self._attributes)
        return fake


_UNKNOWN: Any = object()


def _key(
    learned: _Learned, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]
) -> Hashable | None:
    """Return what decides the result's shape, and collect the tensors; None where something else
    decides it.
    """
    if not learned.decided:
        return None
    parts: list[Any] = [torch.is_inference_mode_enabled()]
    if not _append(args, parts, tensors, learned):
        return None
    for name, value in kwargs.items():
        parts.append(name)
        if not _append((value,), parts, tensors, learned):
            return None
    return tuple(parts)


def _append(values: Any, parts: list[Any], tensors: list[Tensor], learned: _Learned) -> bool:
    for value in values:
        kind = type(value)
        if kind is FakeTensor or isinstance(value, FakeTensor):
            # A tensor of which torch knows the value is computed with.
            if value.constant is not None or value.layout is not torch.strided:
                return False
            if value.fake_device != _CPU:
                return False
            tensors.append(value)
            parts += (value.shape, value.stride(), value.dtype)
            if learned.offsets_matter:
                parts.append(value.storage_offset())
        elif isinstance(value, Tensor):
            return False
        elif kind is list or kind is tuple:
            parts.append(len(value))
            if not _append(value, parts, tensors, learned):
                return False
        elif kind is float and not learned.numbers_matter:
            parts.append(kind)
        elif isinstance(value, torch.Generator):
            parts.append(None)
        else:
            parts += (kind, value)
    return True


def _viewed(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Recipe:
    """Learn a view as PyTorch makes it."""
    x = args[0]
    with _disable_current_modes(), torch.no_grad():
        like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        out = operator(like, *args[1:], **kwargs)
    views = [out] if isinstance(out, Tensor) else out
    parts = tuple(
        _Made(0, tuple(view.shape), view.stride(), int(view.storage_offset()), x.dtype, True)
        for view in views
    )
    return None if isinstance(out, Tensor) else type(out), parts


def _recipe(learned: _Learned, out: Any, tensors: list[Tensor]) -> _Recipe | None:
    """Return how to make a result again; None where shapes don't tell."""
    if isinstance(out, Tensor):
        part = _part(learned, out, tensors)
        return None if part is None else (None, (part,))
    if not isinstance(out, tuple | list) or not all(isinstance(item, Tensor) for item in out):
        return None
    parts = [_part(learned, item, tensors) for item in out]
    # Results that share a storage of their own would have to be made together.
    storages = {item.untyped_storage()._cdata for item in out}
    own = [part for part in parts if part is not None and part.argument is None]
    if None in parts or (own and len(storages) < len(out)):
        return None
    return list if isinstance(out, list) else tuple, tuple(p for p in parts if p is not None)


def _part(learned: _Learned, out: Tensor, tensors: list[Tensor]) -> _Made | None:
    if not isinstance(out, FakeTensor) or out.constant is not None or out.fake_device != _CPU:
        return None
    if out.layout is not torch.strided or out.is_conj() or out.is_neg():
        return None
    for place, tensor in enumerate(tensors):
        if out is tensor:
            return _Made(place)
    shape, stride, offset = tuple(out.shape), out.stride(), int(out.storage_offset())
    key = out.untyped_storage()._cdata
    for place, tensor in enumerate(tensors):
        if tensor.untyped_storage()._cdata == key:
            # An operator that isn't known as a view may begin anywhere.
            if out.dtype != tensor.dtype or not learned.offsets_matter:
                return None
            offset -= int(tensor.storage_offset())
            return _Made(place, shape, stride, offset, out.dtype, is_view=True)
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    needed = 0 if 0 in shape else reach * out.dtype.itemsize
    if offset or out.untyped_storage().nbytes() != needed:
        return None
    return _Made(None, shape, stride, 0, out.dtype)
