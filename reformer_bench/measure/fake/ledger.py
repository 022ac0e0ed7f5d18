"""StorageLedger keeps the births and deaths of tensor storages, in an allocator's order."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.fake.autograd import called_by_engine
from reformer_bench.measure.fake.by_operator import by_operator

_ELSEWHERE = -1
"""Stands for the number of a storage that was allocated before."""


class _Death(weakref.ref[Any]):
    """A weak reference to a storage, which knows the birth that it ends."""

    __slots__ = ("key", "number", "size")
    key: int
    number: int
    size: int


@dataclass
class _Stretch:
    """A stretch of work under way."""

    first_event: int
    first_number: int
    before_bytes: int
    high_bytes: int
    ends_others: bool = False
    """Whether a storage that was there before it died in it."""


class StorageLedger:
    """A column of numbers (one for each storage, never used twice) and one of byte changes.

    Views share a storage and count once. Storages are held by weak references only; a death is
    written the moment the last tensor of a storage goes.
    """

    def __init__(self, taken_bytes: Callable[[int], int]) -> None:
        """``taken_bytes`` maps the bytes asked of the allocator to the bytes that it takes."""
        self._taken_bytes = taken_bytes
        self.numbers = array("q")
        self.deltas = array("q")
        self.places: dict[int, str] = {}
        """Where each storage that lives, or lived in a peak, was born."""
        self.place = ""
        """Where what is born now is born."""
        self.live_bytes = 0
        self._alive: dict[int, _Death] = {}
        self._next_number = 0
        self._stretches: list[_Stretch] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self.deltas)

    def see(self, tensor: torch.Tensor) -> None:
        """Write the birth of a tensor's storage, if it is new; of a resized one, the change."""
        storage = tensor.untyped_storage()
        # Private, but the only name of a storage that its views share.
        key: int = storage._cdata
        size = storage.nbytes()
        known = self._alive.get(key)
        if known is not None and known.size == size:
            return
        if size:
            death = _Death(storage, self._end)
            death.key, death.size = key, size
            death.number = self._born(self._taken_bytes(size))
            self._alive[key] = death
        if known is not None:
            # A resized storage lives in its old memory until it is copied to the new.
            self._end(known)

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """Return the number of a tensor's storage; None where it is empty or wasn't seen born."""
        found = self._alive.get(tensor.untyped_storage()._cdata)
        return None if found is None or found.number == _ELSEWHERE else found.number

    def pass_over(self, tensor: torch.Tensor) -> None:
        """Know a tensor's storage as one that was there before, which is never written."""
        storage = tensor.untyped_storage()
        death = _Death(storage, self._end)
        death.key, death.number, death.size = storage._cdata, _ELSEWHERE, storage.nbytes()
        self._alive[death.key] = death

    def bump(self, n_bytes: int) -> None:
        """Write bytes that come and go at once: what an operator holds inside."""
        if n_bytes > 0:
            self._died(self._born(n_bytes), n_bytes)

    def hold(self, n_bytes: int) -> int:
        """Write bytes that come and stay, and return the number to release them by."""
        return self._born(n_bytes)

    def release(self, number: int, n_bytes: int) -> None:
        """Write the end of bytes that were held."""
        if not self._closed:
            self._died(number, n_bytes)

    def start(self) -> None:
        """Begin a stretch of work; stretches may nest."""
        self._stretches.append(
            _Stretch(len(self), self._next_number, self.live_bytes, self.live_bytes)
        )

    def stop(self) -> int | None:
        """End the stretch and return the most bytes that it held at once, if it left all as it was;
        else None.

        Its events are then written over by a single bump, which has the same peak: what comes and
        goes inside a stretch is temporary whatever its order.
        """
        stretch = self._stretches.pop()
        height = stretch.high_bytes - stretch.before_bytes
        if self._stretches:
            outer = self._stretches[-1]
            outer.high_bytes = max(outer.high_bytes, stretch.high_bytes)
        if stretch.ends_others or self.live_bytes != stretch.before_bytes:
            return None
        for number in self.numbers[stretch.first_event :]:
            self.places.pop(number, None)
        del self.numbers[stretch.first_event :]
        del self.deltas[stretch.first_event :]
        self.bump(height)
        return height

    def close(self) -> None:
        """Write no more deaths from now on."""
        self._closed = True

    def _born(self, n_bytes: int) -> int:
        number = self._next_number
        self._next_number += 1
        self.numbers.append(number)
        self.deltas.append(n_bytes)
        self.live_bytes += n_bytes
        if self.place:
            self.places[number] = self.place
        if self._stretches:
            stretch = self._stretches[-1]
            if self.live_bytes > stretch.high_bytes:
                stretch.high_bytes = self.live_bytes
        return number

    def _died(self, number: int, n_bytes: int) -> None:
        self.numbers.append(number)
        self.deltas.append(-n_bytes)
        self.live_bytes -= n_bytes
        for stretch in reversed(self._stretches):
            if number >= stretch.first_number:
                break
            stretch.ends_others = True

    def _end(self, death: Any) -> None:
        if self._closed:
            return
        key, number, size = death.key, death.number, death.size
        if self._alive.get(key) is death:
            del self._alive[key]
        if number == _ELSEWHERE:
            return
        self._died(number, self._taken_bytes(size))


_aten = torch.ops.aten
_KEEPING = frozenset({_aten.mul.Tensor, _aten.mul_.Tensor, _aten.div.Tensor, _aten.div_.Tensor})


@by_operator
def _keeps_number(operator: Any) -> bool:
    return operator in _KEEPING


_METADATA = "reformer_bench.saved_scalar"
_BYTES = 8


class _SavedScalar:
    """The tensor of one Python number, which dies with its node, or when the node has run."""

    def __init__(self, ledger: StorageLedger) -> None:
        self._ledger = ledger
        self._number: int | None = ledger.hold(_BYTES)

    def end(self, *_: Any) -> None:
        if self._number is not None:
            self._ledger.release(self._number, _BYTES)
            self._number = None

    __del__ = end


class SavedScalars:
    """Follows the Python numbers that backward nodes keep as tensors.

    ``x * 2.0`` makes a tensor of the number, which the result's node holds until it has run, and
    which its backward pass multiplies by.
    """

    def __init__(self, ledger: StorageLedger, *, in_memory: bool) -> None:
        """``in_memory`` is False for devices in whose memory such tensors don't lie."""
        self._ledger, self._in_memory = ledger, in_memory
        self._waiting: tuple[Tensor, _SavedScalar] | None = None

    def settle(self) -> None:
        """Look for the last result's backward node: before each operator, and where work ends."""
        if self._waiting is None:
            return
        result, saved = self._waiting
        self._waiting = None
        # A view that was multiplied in place has its node at what it is a view of. Its own is made
        # by operators, in the middle of one of which this may be: to ask for it would not end.
        holder = result if result._base is None else result._base
        # Declared as a method; it is the node's own dictionary.
        node: Any = holder.grad_fn
        if node is not None:
            node.metadata[_METADATA] = saved
            node.register_hook(saved.end)

    def read_bytes(self, operator: Any, args: tuple[Any, ...]) -> int:
        """Count the bytes of a number that an operator of the backward pass reads from its node, so
        that no tensor is made of it again. To be called by ``__torch_dispatch__`` itself.
        """
        reads = self._in_memory and _keeps_number(operator) and len(args) == 2
        return _BYTES if reads and not isinstance(args[1], Tensor) and called_by_engine() else 0

    def after(self, operator: Any, out: Any, args: tuple[Any, ...]) -> None:
        """Note, after an operator, the number that its backward node will keep."""
        if not self._in_memory or not _keeps_number(operator) or len(args) != 2:
            return
        if not torch.is_grad_enabled():
            return
        x, number = args
        if not isinstance(number, Tensor) and isinstance(x, Tensor) and x.requires_grad:
            self._waiting = (out, _SavedScalar(self._ledger))
