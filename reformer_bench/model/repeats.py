"""Marks work that repeats, so that whoever follows a run's memory follows equal work once.

Head groups, blocks of chunks and layers do the same again and again. A prediction that runs one of
them on fake tensors knows the others, if it knows that they are equal. What equal means is derived
here from the arguments, and nowhere else: a key written by hand that forgot one would falsify a
prediction without anybody noticing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, ParamSpec, Protocol

import torch
from torch import Tensor, nn

from reformer_bench.schema.model import ModelConfig

P = ParamSpec("P")


class Index(int):
    """Which of several alike is meant: a layer, a group of heads, a hash round, a position.

    It decides values, never shapes, so it is no part of a key.
    """


class Seed(int):
    """What random numbers are drawn from. It decides no shapes, so it is no part of a key."""


class Follower(Protocol):
    """Decides whether marked work is run."""

    def __call__(self, key: Hashable, work: Callable[[], None], place: str | None) -> None:
        """Be told of work that is about to run.

        Args:
            key: Equal for work that allocates the same.
            work: Runs it.
            place: Where in the model it is, in words for people; None where that is not known.
        """


REPEATED: list[Callable[..., None]] = []
"""Every function that is marked."""

_followers: list[Follower] = []


def repeats(work: Callable[P, None]) -> Callable[P, None]:
    """Mark a function or method whose work repeats.

    The work changes tensors in place, returns nothing, keeps nothing that it allocates and frees
    nothing that it was given. What it allocates is decided by its arguments alone. Where the first
    argument has a ``place``, that says where in the model the work is.

    Raises:
        TypeError: When it is defined, the function closes over variables, which a key wouldn't
            know of. When it is called while a run is followed, an argument can't be part of a key.
    """
    if work.__closure__ is not None:
        raise TypeError(f"{work.__qualname__} closes over variables, which no key would know of")

    @functools.wraps(work)
    def followed(*args: P.args, **kwargs: P.kwargs) -> None:
        if not _followers:
            work(*args, **kwargs)
            return
        place = getattr(args[0], "place", None) if args else None
        _followers[-1](key_of(work, *args, **kwargs), lambda: work(*args, **kwargs), place)

    REPEATED.append(followed)
    return followed


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """Hand work that is marked to a follower while the block runs."""
    _followers.append(follower)
    try:
        yield
    finally:
        _followers.pop()


def key_of(work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Hashable:
    """Return what decides the allocations of a call: the function and each of its arguments.

    Tensors count by shape, stride, dtype, device and whether they need a gradient; slices by how
    many rows they select; modules by their attributes and parameters; lists, tuples and dicts by
    what they hold; plain values and configs by their value; ``Index`` and ``Seed`` not at all.
    Frozen dataclasses count by their value where they compare by value, else (``eq=False``, as for
    those that hold tensors) by their fields.

    Raises:
        TypeError: An argument holds something else; the text names the argument.
    """
    try:
        parts = tuple(map(_described, args))
        named = tuple((name, _described(value)) for name, value in kwargs.items())
    except _NotDescribableError as error:
        raise TypeError(
            f"{work.__qualname__}: a {error} in argument {_culprit(work, args, kwargs)!r} can't be "
            "part of a key"
        ) from None
    return work, torch.is_grad_enabled(), parts, named


class _NotDescribableError(Exception):
    """A value of a type that can't be part of a key."""


_BY_VALUE = (bool, int, float, str, Enum, torch.dtype, torch.device, ModelConfig)
_BOOKKEEPING = vars(nn.Module()).keys() - {"training", "_parameters", "_buffers", "_modules"}
"""What torch itself keeps on every module, such as its hooks."""
_PARAMS = "__dataclass_params__"


def _described(value: Any) -> Hashable:
    """Return what of a value decides allocations."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device, value.requires_grad
    if value is None:
        return None
    kind: Any = type(value)
    if kind is Index or kind is Seed:
        return kind
    if isinstance(value, _BY_VALUE):
        return kind, value
    if kind is slice:
        return kind, value.stop - value.start
    if isinstance(value, tuple | list):
        return kind, *map(_described, value)
    if isinstance(value, Mapping):
        return kind, *((name, _described(item)) for name, item in value.items())
    if isinstance(value, nn.Module):
        held = vars(value).items()
        return kind, *((k, _described(v)) for k, v in held if k not in _BOOKKEEPING)
    if not is_dataclass(value) or not getattr(value, _PARAMS).frozen:
        raise _NotDescribableError(kind.__name__)
    if getattr(value, _PARAMS).eq:
        return kind, value
    return kind, *(_described(getattr(value, field.name)) for field in fields(kind))


def _culprit(work: Callable[..., None], args: Any, kwargs: dict[str, Any]) -> str:
    """Return the name of the first argument that holds what can't be part of a key."""
    for name, value in inspect.signature(work).bind(*args, **kwargs).arguments.items():
        try:
            _described(value)
        except _NotDescribableError:
            return name
    raise AssertionError("expected an argument that can't be described")
