"""KnownValues holds what fake tensors would hold, where that follows from constants.

A tensor built of Python numbers (``arange``, ``full``, ``tensor([...])``), and what is worked out
from such tensors alone, has values that no data and no chance decide. They are computed, on small
real tensors beside the fake ones, so that code which reads them gets the numbers of the real run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.measure.fake.by_operator import by_operator

_aten = torch.ops.aten
MOST_ELEMENTS = 2**20
"""Tensors of more elements have no known values: they would take time and memory."""

_OF_NUMBERS = frozenset(
    getattr(_aten, name)
    for name in (
        *("arange", "linspace", "logspace", "full", "zeros", "ones", "eye", "scalar_tensor"),
        *("tril_indices", "triu_indices", "lift_fresh", "lift"),
    )
)
_WHATEVER_WAS_THERE: dict[Any, Callable[[tuple[Any, ...]], Any]] = {
    _aten.zeros_like: lambda args: 0,
    _aten.new_zeros: lambda args: 0,
    _aten.zero_: lambda args: 0,
    _aten.zero: lambda args: 0,
    _aten.ones_like: lambda args: 1,
    _aten.new_ones: lambda args: 1,
    _aten.full_like: lambda args: args[1],
    _aten.new_full: lambda args: args[2],
    _aten.fill_: lambda args: args[1],
    _aten.fill: lambda args: args[1],
}
"""Operators that fill their result with one number, by where that number is."""
_WITHOUT_VALUES = frozenset(
    getattr(_aten, name)
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("empty_permuted", "resize_", "set_", "_local_scalar_dense"),
    )
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the values of an operator's results are found."""

    makes: bool
    """Whether it makes them of its numbers alone."""
    unknown: bool
    """Whether nothing is known of them: they are drawn, or left as they are."""
    number: Callable[[tuple[Any, ...]], Any] | None
    written: tuple[int | str, ...]
    """The arguments that it writes to, by position or name."""


@by_operator
def _rule(operator: Any) -> _Rule:
    packet = operator.overloadpacket
    drawn = torch.Tag.nondeterministic_seeded in operator.tags
    arguments = enumerate(operator._schema.arguments)
    return _Rule(
        packet in _OF_NUMBERS,
        drawn or packet in _WITHOUT_VALUES or operator.namespace != "aten",
        _WHATEVER_WAS_THERE.get(packet),
        tuple(
            argument.name if argument.kwarg_only else position
            for position, argument in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ),
    )


class KnownValues:
    """The known values of fake tensors, by the storage that they share with their views."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], torch.UntypedStorage]] = {}
        self._assumed: dict[int, str] = {}
        """Those of the known ones that come from an assumption, and which it is."""

    def of(self, tensor: Any) -> Tensor | None:
        """Return a real tensor with the values of a fake one; None where they aren't known.

        It shares its memory with those of the fake tensor's views, and is not to be written to.
        """
        if not isinstance(tensor, FakeTensor):
            return None
        found = self._known.get(tensor.untyped_storage()._cdata)
        if found is None:
            return None
        shape = (int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())
        with torch._C._DisableTorchDispatch():
            return torch.empty((), dtype=tensor.dtype).set_(found[1], *shape)

    def assumption(self, tensor: Tensor) -> str | None:
        """Return the assumption that a tensor's known values come from; None where they are
        certain.
        """
        return self._assumed.get(tensor.untyped_storage()._cdata)

    def learn(self, tensor: Tensor, real: Tensor, assumed: str | None = None) -> None:
        """Take the values of a real tensor for those of a fake one of its own storage.

        ``assumed`` says what they rest on, where they are not certain.
        """
        if not isinstance(tensor, FakeTensor) or tensor.requires_grad:
            return
        if tensor.layout is not torch.strided or not 0 < tensor.numel() <= MOST_ELEMENTS:
            return
        storage = tensor.untyped_storage()
        if tensor.storage_offset():
            return
        with torch._C._DisableTorchDispatch():
            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            like.copy_(real)
            if like.untyped_storage().nbytes() != storage.nbytes():
                return
        key = storage._cdata

        def end(reference: weakref.ref[Any]) -> None:
            held = self._known.get(key)
            if held is not None and held[0] is reference:
                self._drop(key)

        self._drop(key)
        self._known[key] = (weakref.ref(storage, end), like.untyped_storage())
        if assumed is not None:
            self._assumed[key] = assumed

    def _drop(self, key: int) -> None:
        self._known.pop(key, None)
        self._assumed.pop(key, None)

    def forget(self, tensor: Any) -> None:
        """Know the values of a tensor and of its views no longer."""
        if isinstance(tensor, FakeTensor):
            self._drop(tensor.untyped_storage()._cdata)

    def follow(
        self, operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Work out what an operator's results hold, where its arguments tell."""
        rule = _rule(operator)
        if rule.number is not None:
            self._filled(rule.number(args), out)
            return
        real = None
        if not rule.unknown and (rule.makes or self._all_known((*args, *kwargs.values()))):
            real = self._small(operator, out, args, kwargs)
        if real is None:
            if rule.written:
                self._forget_written(rule, args, kwargs)
            return
        assumed = self._assumption_of((args, kwargs)) if self._assumed else None
        for fake, value in zip(_tensors(out), _tensors(real), strict=True):
            key = fake.untyped_storage()._cdata
            if key not in self._known and not rule.written:
                self.learn(fake, value, assumed)
            elif assumed is not None:
                self._assumed[key] = assumed

    def _assumption_of(self, value: Any) -> str | None:
        return next(filter(None, map(self.assumption, _tensors(value))), None)

    def _small(self, operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(x.numel() > MOST_ELEMENTS for x in _tensors(out)):
            return None
        return self.computed(operator, args, kwargs)

    def _all_known(self, values: Iterable[Any]) -> bool:
        """Say whether there are tensors among the arguments, all of them known."""
        some = False
        for value in values:
            if isinstance(value, FakeTensor):
                if value.untyped_storage()._cdata not in self._known:
                    return False
                some = True
            elif isinstance(value, tuple | list) and any(isinstance(x, Tensor) for x in value):
                if not self._all_known(value):
                    return False
                some = True
        return some

    def computed(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return an operator's real results from known values; None where some aren't known, or
        where the real operator fails.
        """
        if not _rule(operator).makes and not self._all_known((*args, *kwargs.values())):
            return None
        try:
            with torch._C._DisableTorchDispatch():
                return operator(*self._exchanged(args), **self._exchanged(kwargs))
        except (RuntimeError, NotImplementedError, TypeError, IndexError):
            return None

    def _filled(self, number: Any, out: Any) -> None:
        real: Any = self.of(number) if isinstance(number, Tensor) else number
        known = self.of(out)
        if real is None:
            self.forget(out)
            return
        with torch._C._DisableTorchDispatch():
            if known is not None:
                known.fill_(real)
            elif isinstance(out, FakeTensor) and out.numel() <= MOST_ELEMENTS:
                self.learn(out, torch.empty((), dtype=out.dtype).fill_(real))

    def _forget_written(self, rule: _Rule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for at in rule.written:
            if isinstance(at, str):
                written = kwargs.get(at)
            else:
                written = args[at] if at < len(args) else None
            for tensor in _tensors(written):
                self.forget(tensor)

    def _exchanged(self, value: Any) -> Any:
        if isinstance(value, FakeTensor):
            real = self.of(value)
            assert real is not None
            return real
        if isinstance(value, tuple | list):
            return type(value)([self._exchanged(item) for item in value])
        if isinstance(value, dict):
            return {name: self._exchanged(item) for name, item in value.items()}
        return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
