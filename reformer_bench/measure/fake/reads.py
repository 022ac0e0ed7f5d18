"""Reads answers code that wants values of fake tensors: what is known, what is likely, or an error.

A value that follows from constants is known. Of others, a condition is taken to be the likely one,
and a note says so. A size that depends on values has an upper bound for some operators, which is
taken and noted; for others there is an error.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.measure.fake.by_operator import by_operator
from reformer_bench.measure.fake.operators_cpu_parts import GRAIN
from reformer_bench.measure.fake.source import Use, model_place, running_frame, use_of_value
from reformer_bench.measure.fake.values import MOST_ELEMENTS, KnownValues
from reformer_bench.schema.errors import InputError

_aten = torch.ops.aten
_ITEM = _aten._local_scalar_dense.default
_EQUAL = _aten.equal.default
_MASKS = (torch.bool, torch.uint8)
_PUTTING = frozenset(
    getattr(_aten, name)
    for name in ("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put")
)
_INDEXING = _PUTTING | {_aten.index, _aten._unsafe_index}
_TRUNC_NORMAL = nn.init._no_grad_trunc_normal_.__code__
_FAULTS = frozenset({_aten.isnan, _aten.isinf})
_NOT_EQUAL = _aten.ne.Tensor
_TOPK, _ARGMAX = _aten.topk.default, _aten.argmax.default
_SUMMARIES = frozenset({_aten.any, _aten.all})
_ADVICE = (
    "put a constant in its place, or make the inputs that it comes from of constants "
    "(torch.ones, torch.arange, torch.tensor) in the step"
)
_BYTES_OF_INDEX = 8


@by_operator
def _kind(operator: Any) -> str | None:
    """Say what an operator has to do with values; None for nearly all: nothing."""
    packet = operator.overloadpacket
    if operator is _ITEM:
        return "item"
    if operator is _EQUAL:
        return "equal"
    if packet in _INDEXING:
        return "indexed"
    if torch.Tag.dynamic_output_shape in operator.tags:
        return "sized"
    if packet in _FAULTS:
        return "fault"
    if packet in _SUMMARIES:
        return "summary"
    return "other" if operator in (_NOT_EQUAL, _TOPK, _ARGMAX) else None


class NotPredictableError(InputError):
    """The code needs the values of tensors, which fake tensors don't have."""


def refusal(what: str, advice: str) -> NotPredictableError:
    """Return the error of the line that runs now: what it does, where, and what to do."""
    return NotPredictableError(
        f"cannot be predicted without running it: {what}, at {model_place()}; {advice}"
    )


class Reads:
    """Answers operators that need values, for one recording."""

    def __init__(self, values: KnownValues) -> None:
        self._values = values
        self.notes: dict[str, None] = {}
        """What was assumed, in order, each once."""
        self.bounded: str | None = None
        """The first note of a size that was taken to be as large as it can be."""
        self._asked: dict[int, int] = {}
        """How often a loop has asked whether to go on, by its frame."""
        self._likely: dict[int, tuple[weakref.ref[Any], bool]] = {}
        """What flags are taken to be that say something of many numbers, by their storages."""

    def answer(
        self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, int] | None:
        """Return the result of an operator that needs values, and the bytes that it holds inside
        because of them; None for all other operators.

        Raises NotPredictableError where a size depends on values and has no bound.
        """
        kind = _kind(operator)
        if kind is None:
            return None
        if kind == "item":
            return self._item(args[0]), 0
        if kind == "equal":
            return self._equal(args[0], args[1]), 0
        if kind == "indexed":
            return self._indexed(operator, args, kwargs)
        if kind == "sized":
            return self._sized(operator, args, kwargs)
        return None

    def follow(self, operator: Any, out: Any, args: tuple[Any, ...]) -> None:
        """Remember what a flag is likely to be, by what makes it.

        That any number is infinite or none is taken to be false; of anything else, that it holds
        for any or for all is taken to be true.
        """
        kind = _kind(operator)
        if kind is None:
            return
        if kind == "fault" or (operator is _NOT_EQUAL and args[0] is args[1]):
            self._expect(out, False)
        elif kind == "summary":
            self._expect(out, self._expected(args[0], True))
        elif operator is _TOPK and self._values.of(args[0]) is None:
            self._choose(args[0], out[1], args[1], *args[2:3])
        elif operator is _ARGMAX and self._values.of(args[0]) is None:
            self._choose(args[0], out, 1, *args[1:2])

    def _choose(self, x: Tensor, chosen: Tensor, k: int, dim: int | None = -1) -> None:
        """Assume which choices the rows make, as of experts: one half the first ones, the other
        half the last ones, and a few rows all that are left.

        So everything is chosen by some, and what comes first and what comes last, where most is
        held besides, has more rows than its share.
        """
        if dim not in (-1, x.dim() - 1) or not 0 < chosen.numel() <= MOST_ELEMENTS:
            return
        n = x.shape[-1]
        with torch._C._DisableTorchDispatch():
            row = torch.arange(chosen.numel() // k)[:, None]
            first = torch.where(row < len(row) // 2, 0, n - k)
            first = torch.where(row * k < n, row * k, first)
            choices = ((first + torch.arange(k)) % n).reshape(chosen.shape)
        note = (
            f"the choices of {k} of {n} at {model_place()} were taken to be the first or the "
            "last ones, by half of the rows each"
        )
        self._values.learn(chosen, choices, note)

    def _expect(self, flags: Tensor, likely: bool) -> None:
        storage = flags.untyped_storage()
        key = storage._cdata
        self._likely[key] = (weakref.ref(storage, lambda _: self._likely.pop(key, None)), likely)

    def _expected(self, flags: Tensor, otherwise: bool) -> bool:
        found = self._likely.get(flags.untyped_storage()._cdata)
        return otherwise if found is None else found[1]

    def _item(self, x: Tensor) -> Any:
        known = self._values.of(x)
        if known is None and isinstance(x, FakeTensor):
            known = x.constant
        if known is not None:
            self._note_assumption(x)
            with torch._C._DisableTorchDispatch():
                return known.item()
        frame, use = _use()
        if x.dtype is torch.bool or use.passing is not None:
            return self._truth("a condition", x, frame, use)
        if use.passing_number is not None:
            return self._noted("a number", use.passing_number)
        if x.dtype.is_floating_point and use.purpose != "sizes":
            return self._noted("a number", 1.0)
        raise refusal(
            f"{_ITEM} reads a number that no constant decides, and that may be a size",
            _ADVICE,
        )

    def as_numpy(self, x: Tensor) -> Any:
        """Return the array that ``x.numpy()`` asks for: what x is known to hold, or else ones."""
        known = self._values.of(x)
        if known is not None:
            self._note_assumption(x)
            with torch._C._DisableTorchDispatch():
                return known.clone().numpy()
        if not x.dtype.is_floating_point:
            raise refusal("numpy() of numbers that no constant decides", _ADVICE)
        self._note(f"the numbers of an array made at {model_place()} were taken to be 1.0")
        with torch._C._DisableTorchDispatch():
            return torch.ones(x.shape, dtype=x.dtype).numpy()

    def _equal(self, a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        known_a, known_b = self._values.of(a), self._values.of(b)
        if known_a is not None and known_b is not None:
            self._note_assumption(a, b)
            with torch._C._DisableTorchDispatch():
                return torch.equal(known_a, known_b)
        return self._truth("torch.equal", a, *_use())

    def _truth(self, what: str, x: Tensor, frame: FrameType | None, use: Use) -> bool:
        if frame is not None and frame.f_code is _TRUNC_NORMAL:
            return self._goes_on(frame, lambda asked: _drawn_again(frame.f_locals, asked))
        if frame is not None and use.purpose == "loops":
            self._note(f"the loop at {model_place()} was taken to be gone round once")
            return self._goes_on(frame, lambda asked: asked == 1) is not use.passing
        if use.passing is not None:
            return bool(self._noted(what, use.passing))
        return bool(self._noted(what, self._expected(x, False)))

    def _goes_on(self, frame: FrameType, told: Callable[[int], bool]) -> bool:
        """Say whether a frame's loop goes on, from how often it has asked."""
        key = id(frame)
        asked = self._asked[key] = self._asked.get(key, 0) + 1
        goes_on = told(asked)
        if not goes_on:
            del self._asked[key]
        return goes_on

    # Sizes that depend on values.

    def _sized(
        self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, int]:
        """Return results whose sizes are known, or else as large as they can be."""
        real = self._values.computed(operator, args, kwargs)
        if real is None:
            largest = _LARGEST.get(operator)
            if largest is None:
                raise refusal(
                    f"{operator} makes a tensor whose size depends on values",
                    "give what decides the size as a constant, or turn off what calls it",
                )
            self._note_bound(operator)
            real = largest(args)
        else:
            self._note_assumption(*args, *kwargs.values())
        held = _HELD.get(operator.overloadpacket)
        return self._made(real), 0 if held is None else held(real, *args)

    def _made(self, real: Any) -> Any:
        """Return fake tensors like real ones, which hold their values; those of the device
        ``meta`` have none.
        """
        if not isinstance(real, Tensor):
            return type(real)([self._made(item) for item in real])
        fake = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype)
        if real.device.type != "meta":
            self._values.learn(fake, real)
        return fake

    def _indexed(
        self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, int] | None:
        """Index by masks as the kernels do: by the places of what is set (IndexingUtils.h,
        expandTensors), which they hold until they are done.
        """
        indices = args[1]
        if not any(isinstance(x, Tensor) and x.dtype in _MASKS for x in indices):
            return None
        if operator.overloadpacket in _PUTTING:
            given = [x for x in indices if x is not None]
            accumulates = len(args) > 3 and args[3]
            if len(given) == 1 and args[2].numel() == 1 and not accumulates:
                # One number is filled in by the mask itself (canDispatchToMaskedFill).
                return operator(*args, **kwargs), 0
        found: list[Any] = []
        held = 0
        for index in indices:
            if isinstance(index, Tensor) and index.dtype in _MASKS:
                places = self._places(operator, index, args)
                held += places.numel() * _BYTES_OF_INDEX
                found += places.unbind(1)
            else:
                found.append(index)
        return operator(args[0], found, *args[2:], **kwargs), held

    def _places(self, operator: Any, mask: Tensor, args: tuple[Any, ...]) -> Tensor:
        """Return the places of what a mask sets: as many as there are values to put, if any are."""
        if operator.overloadpacket in _PUTTING and self._values.of(mask) is None:
            x, values = args[0], args[2]
            inner = x.dim() - mask.dim()
            if len(args[1]) == 1 and values.dim() == inner + 1 and values.shape[0] != 1:
                return torch.empty((values.shape[0], mask.dim()), dtype=torch.int64)
        places: Tensor = self._sized(_aten.nonzero.default, (mask,), {})[0]
        return places

    def _note_bound(self, operator: Any) -> None:
        note = f"{operator} at {model_place()} was taken to find all there is: an upper bound"
        self._note(note)
        self.bounded = self.bounded or note

    def _note_assumption(self, *arguments: Any) -> None:
        for x in arguments:
            assumed = self._values.assumption(x) if isinstance(x, Tensor) else None
            if assumed is not None:
                self._note(assumed)

    def _noted(self, what: str, value: Any) -> Any:
        self._note(f"{what} read at {model_place()} was taken to be {value}")
        return value

    def _note(self, note: str) -> None:
        self.notes[note] = None


def _use() -> tuple[FrameType | None, Use]:
    frame = running_frame()
    return frame, Use("number") if frame is None else use_of_value(frame)


def _bytes(x: Tensor) -> int:
    return int(x.numel() * x.dtype.itemsize)


def _masked_select(out: Tensor, x: Tensor, mask: Tensor) -> int:
    """Count the mask as numbers, which are summed before the result is made; for several threads
    those numbers again and their running sums (TensorAdvancedIndexing.cpp,
    masked_select_out_impl_cpu).
    """
    n = int(math.prod(torch.broadcast_shapes(x.shape, mask.shape)))
    threads = torch.get_num_threads()
    if threads > 1 and n >= GRAIN:
        return 2 * n * _BYTES_OF_INDEX
    return max(0, (n + 1) * _BYTES_OF_INDEX - _bytes(out))


def _repeat_interleave(out: Tensor, repeats: Tensor, *_: Any, **__: Any) -> int:
    """Count the running sums, and before the result is made a flag for each (Repeat.cpp)."""
    n = int(repeats.numel())
    sums = n * _BYTES_OF_INDEX * (1 if repeats.dtype is torch.int64 else 2)
    return max(sums, sums + n + _BYTES_OF_INDEX - _bytes(out))


def _unique(out: tuple[Tensor, ...], x: Tensor, *_: Any, **__: Any) -> int:
    """Count the sorted numbers and their places, which while they are sorted are there twice
    (Unique.cpp).
    """
    sorted_bytes = _bytes(x) + int(x.numel()) * _BYTES_OF_INDEX
    return sorted_bytes + max(0, int(x.numel()) * _BYTES_OF_INDEX - sum(map(_bytes, out)))


def _all_places(args: tuple[Any, ...]) -> Tensor:
    x = args[0]
    with torch._C._DisableTorchDispatch():
        if x.numel() <= MOST_ELEMENTS:
            return torch.ones(x.shape).nonzero()
        return torch.empty((x.numel(), x.dim()), dtype=torch.int64, device="meta")


def _all_selected(args: tuple[Any, ...]) -> Tensor:
    n = math.prod(torch.broadcast_shapes(args[0].shape, args[1].shape))
    with torch._C._DisableTorchDispatch():
        return torch.empty(n, dtype=args[0].dtype, device="meta")


_LARGEST: dict[Any, Callable[[tuple[Any, ...]], Any]] = {
    _aten.nonzero.default: _all_places,
    _aten.masked_select.default: _all_selected,
}
_HELD: dict[Any, Callable[..., int]] = {
    _aten.masked_select: _masked_select,
    _aten.repeat_interleave: _repeat_interleave,
    _aten._unique2: _unique,
    _aten.unique_dim: _unique,
}


def _drawn_again(names: dict[str, Any], asked: int) -> bool:
    """Say whether ``trunc_normal_`` still has numbers to draw again, after so many drawings.

    Each drawing leaves the same share outside; as long as more than one in a thousand tensors of
    the size would have a number left, there is taken to be one.
    """
    std, a, b, kept = (float(names[name]) for name in ("std", "a", "b", "p"))
    if "log_peak" in names:
        # Drawn evenly from a to b, and kept in proportion to the density.
        kept *= std * math.sqrt(2 * math.pi) / (b - a) * math.exp(-names["log_peak"])
    left: float = names["tensor"].numel() * (1 - min(1.0, kept)) ** asked
    return left > 1e-3
