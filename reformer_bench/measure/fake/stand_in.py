"""Runs of operators on stand-ins: tensors of the same layout as those of a prediction.

What a library keeps in buffers of its own is its choice, by shape, instruction set and number of
threads, and nothing tells it in advance. So the operator is run, and the allocator's events say
what it took.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.allocator.cpu import record_cpu_allocations


@dataclass(frozen=True)
class Layout:
    """What decides how an operator treats a tensor: sizes, strides and dtype."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """Return a tensor's layout."""
        return cls(tuple(x.shape), x.stride(), x.dtype)

    @classmethod
    def ordered(cls, sizes: tuple[int, ...], dtype: torch.dtype, order: str) -> Layout:
        """Return the layout without gaps, by columns or else by rows."""
        strides = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
        if order == "columns":
            strides[-2:] = 1, sizes[-2]
        return cls(sizes, tuple(strides), dtype)

    def cut(self, dim: int, size: int) -> Layout:
        """Return the layout with another size in one dimension, as dense as before."""
        sizes = (*self.sizes[:dim], size, *self.sizes[dim + 1 :])
        step = self.strides[dim]
        strides = tuple(
            s // self.sizes[dim] * size if s > step and s % self.sizes[dim] == 0 else s
            for s in self.strides
        )
        return Layout(sizes, strides, self.dtype)

    def tensor(self, *, filled: bool) -> Tensor:
        """Return a tensor of this layout: without values, which takes no memory while it is left
        untouched, or with such as any operator allows (zeros for indices and counts, ones for
        probabilities and deviations).
        """
        reach = 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        values = torch.empty(max(0, reach), dtype=self.dtype)
        if filled:
            values.fill_(1 if self.dtype.is_floating_point or self.dtype.is_complex else 0)
        return values.as_strided(self.sizes, self.strides)


@dataclass(frozen=True)
class State:
    """What decides, beside its arguments, what an operator holds."""

    threads: int
    onednn: bool
    records_gradients: bool

    @classmethod
    def now(cls) -> State:
        """Return the state of this thread and process."""
        return cls(
            torch.get_num_threads(), bool(torch.backends.mkldnn.enabled), torch.is_grad_enabled()
        )


@dataclass(frozen=True)
class Held:
    """What an operator held while it ran."""

    peak_bytes: int
    """The most, its results among it."""
    result_bytes: tuple[int, ...]
    """The storage of each result."""

    @property
    def inside_bytes(self) -> int:
        """The most, besides the results."""
        return self.peak_bytes - sum(self.result_bytes)


def described(value: Any) -> Any:
    """Return an argument as what can be hashed and made again: of a tensor its layout."""
    if isinstance(value, Tensor):
        return Layout.of(value)
    return tuple(map(described, value)) if isinstance(value, list | tuple) else value


def named_arguments(kwargs: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return arguments by name as what can be hashed and made again."""
    return tuple((name, described(value)) for name, value in kwargs.items())


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors among results or arguments, in lists too."""
    if isinstance(value, Tensor):
        return [value]
    return (
        [x for item in value for x in tensors_in(item)] if isinstance(value, tuple | list) else []
    )


def made(value: Any, *, filled: bool) -> Any:
    """Return an argument that was described, with tensors of the layouts."""
    if isinstance(value, Layout):
        return value.tensor(filled=filled)
    if isinstance(value, tuple):
        return [made(one, filled=filled) for one in value]
    return value


@functools.cache
def held_in_run(
    operator: Any,
    args: tuple[Any, ...],
    kwargs: tuple[tuple[str, Any], ...],
    state: State,
    *,
    filled: bool = True,
    with_gradients: bool = False,
    prepare: Callable[[list[Any]], list[Any]] | None = None,
) -> Held:
    """Run an operator on stand-ins, and return what it held.

    Args:
        operator: An operator.
        args: Described arguments.
        kwargs: Described arguments by name.
        state: As it is now; only part of what results are remembered by.
        filled: Whether the stand-ins need values.
        with_gradients: Whether gradients are recorded meanwhile.
        prepare: Completes the arguments, before anything counts.
    """
    with _disable_current_modes(), _own_random_numbers(), torch.set_grad_enabled(with_gradients):
        given = [made(value, filled=filled) for value in args]
        given = given if prepare is None else prepare(given)
        named = {name: made(value, filled=filled) for name, value in kwargs}
        operator(*given, **named)  # What the first call makes once only isn't the operator's.
        with record_cpu_allocations() as recording, recording.phase("forward"):
            results = operator(*given, **named)
        peak = recording.timeline.peak_of_step(0)
        sizes = tuple(x.untyped_storage().nbytes() for x in tensors_in(results))
        return Held(0 if peak is None else peak.allocated_bytes, sizes)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave torch's random numbers as they are. Asked of the generator itself: a recording counts
    the states that ``torch.get_rng_state`` returns.
    """
    generator = torch.default_generator
    before = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(before)
