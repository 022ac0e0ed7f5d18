"""ShapeMemo makes results of operators on fake tensors from what the same shapes gave before.

FakeTensorMode takes about 100 µs an operator, of which working out the result is the least part.
The shapes, strides and aliases of a result follow from those of the arguments; seen once, a result
is made directly.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import _disable_current_modes

_CPU = torch.device("cpu")
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
"""Fake tensors give dimensions of size 1 other strides than PyTorch does, on which some kernels'
copies depend; tensors on the device ``meta`` have the real ones."""
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
    dtype: torch.dtype = torch.float32
    is_view: bool = False


_Recipe = tuple[_Made, ...]
_RECIPES: dict[Hashable, tuple[type | None, _Recipe] | None] = {}
"""For each key the kind of sequence (None: a single tensor) and its parts; None: not made here."""


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
        key = _key(operator, args, kwargs, tensors)
        if key is None:
            return operator(*args, **kwargs)
        found = _RECIPES.get(key, _UNKNOWN)
        if found is _UNKNOWN and operator in _VIEWS:
            found = _RECIPES[key] = (None, (self._view(operator, args, tensors[0]),))
        if found is _UNKNOWN:
            out = operator(*args, **kwargs)
            _RECIPES[key] = _learned(out, tensors)
            return out
        if found is None:
            return operator(*args, **kwargs)
        kind, recipe = found
        made = [self._make(part, tensors) for part in recipe]
        return made[0] if kind is None else kind(made)

    def _view(self, operator: Any, args: tuple[Any, ...], x: Tensor) -> _Made:
        """Learn a view as PyTorch makes it."""
        with _disable_current_modes(), torch.no_grad():
            like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
            view = operator(like, *args[1:])
        offset = int(x.storage_offset())
        return _Made(0, tuple(view.shape), view.stride(), offset, x.dtype, is_view=True)

    def _make(self, part: _Made, tensors: list[Tensor]) -> Tensor:
        if part.argument is not None and not part.is_view:
            return tensors[part.argument]
        with torch._C._DisableTorchDispatch():
            if part.argument is None:
                made = torch.empty_strided(part.size, part.stride, dtype=part.dtype, device="meta")
            else:
                made = torch.empty((), dtype=part.dtype, device="meta")
                storage = tensors[part.argument].untyped_storage()
                made.set_(storage, part.offset, part.size, part.stride)
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
    operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]
) -> Hashable | None:
    """Return what decides the result's shape, and collect the tensors; None where something else
    decides it.
    """
    matter = _numbers_matter(operator)
    if matter is None:
        return None
    parts: list[Any] = [operator, torch.is_inference_mode_enabled()]
    if not _append(args, parts, tensors, matter):
        return None
    for name, value in kwargs.items():
        parts.append(name)
        if not _append((value,), parts, tensors, matter):
            return None
    return tuple(parts)


@functools.cache
def _numbers_matter(operator: Any) -> bool | None:
    """Say whether a float argument may decide shapes; None where arguments don't suffice."""
    if operator.namespace != "aten" or any(tag in operator.tags for tag in _NOT_FIXED):
        return None
    return torch.Tag.pointwise not in operator.tags


def _append(values: Any, parts: list[Any], tensors: list[Tensor], numbers_matter: bool) -> bool:
    for value in values:
        kind = type(value)
        if kind is FakeTensor or isinstance(value, FakeTensor):
            # A tensor of which torch knows the value is computed with.
            if value.constant is not None or value.layout is not torch.strided:
                return False
            if value.fake_device != _CPU:
                return False
            tensors.append(value)
            parts += (value.shape, value.stride(), value.storage_offset(), value.dtype)
        elif isinstance(value, Tensor):
            return False
        elif kind is list or kind is tuple:
            parts.append(len(value))
            if not _append(value, parts, tensors, numbers_matter):
                return False
        elif kind is float and not numbers_matter:
            parts.append(kind)
        elif isinstance(value, torch.Generator):
            parts.append(None)
        else:
            parts += (kind, value)
    return True


def _learned(out: Any, tensors: list[Tensor]) -> tuple[type | None, _Recipe] | None:
    """Return how to make a result again; None where shapes don't tell."""
    if isinstance(out, Tensor):
        part = _part(out, tensors)
        return None if part is None else (None, (part,))
    if not isinstance(out, tuple | list) or not all(isinstance(item, Tensor) for item in out):
        return None
    parts = [_part(item, tensors) for item in out]
    # Results that share a storage of their own would have to be made together.
    storages = {item.untyped_storage()._cdata for item in out}
    own = [part for part in parts if part is not None and part.argument is None]
    if None in parts or (own and len(storages) < len(out)):
        return None
    return list if isinstance(out, list) else tuple, tuple(p for p in parts if p is not None)


def _part(out: Tensor, tensors: list[Tensor]) -> _Made | None:
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
            if out.dtype != tensor.dtype:
                return None
            return _Made(place, shape, stride, offset, out.dtype, is_view=True)
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    needed = 0 if 0 in shape else reach * out.dtype.itemsize
    if offset or out.untyped_storage().nbytes() != needed:
        return None
    return _Made(None, shape, stride, 0, out.dtype)
