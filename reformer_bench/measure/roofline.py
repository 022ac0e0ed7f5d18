"""Counts launches and bytes moved of operators on a GPU.

An operator that makes a view or only reserves memory launches nothing. Any other counts as one
launch that reads each of its inputs and writes each of its outputs once, as if nothing were left in
a cache between two launches and nothing were read twice within one. Some operators of PyTorch
launch several kernels, such as sorting; so launches are a lower bound.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

_NOT_READ = frozenset(
    {
        _aten.copy_,
        _aten.fill_,
        _aten.zero_,
        _aten.normal_,
        _aten.bernoulli_,
        _aten.uniform_,
        _aten.random_,
        _aten._foreach_copy_,
        _aten._foreach_zero_,
    }
)
"""Operators that write their first argument without reading it."""
_ONLY_RESERVE = frozenset(
    {
        _aten.empty,
        _aten.empty_like,
        _aten.empty_strided,
        _aten.new_empty,
        _aten.new_empty_strided,
        _aten.lift_fresh,
        _aten._local_scalar_dense,
        _aten.set_,
        _aten.resize_,
    }
)
_LOOK_UP = frozenset({_aten.embedding, _aten.gather, _aten.index_select, _aten.index})
"""Operators that read of their table as many numbers as they return."""
_NUMBERS_OF_A_BLOCK, _BLOCKS_OF_A_LAUNCH = 65_536, 320
"""kChunkSize and depth_to_max_blocks of the same file."""
_LAUNCHED = "reformer_bench::launched"
"""What a program that isn't an operator of PyTorch calls, with the bytes that it moves."""
_TENSORS_OF_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""How many tensors of each list fit into one launch of a _foreach operator (depth_to_max_tensors
in cuda/MultiTensorApply.cuh)."""


@dataclass(frozen=True)
class Work:
    """What a device has to do, at least."""

    launches: int = 0
    moved_bytes: int = 0
    """The bytes read from the device's memory and written to it."""

    def __add__(self, other: Work) -> Work:
        return Work(self.launches + other.launches, self.moved_bytes + other.moved_bytes)

    def __sub__(self, other: Work) -> Work:
        return Work(self.launches - other.launches, self.moved_bytes - other.moved_bytes)


NOTHING = Work()


def work_of(operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work:
    """Return the work of one operator, given its result and its arguments (fake tensors do)."""
    if operator.namespace == "reformer_bench" and operator._schema.name == _LAUNCHED:
        return Work(1, int(args[2]))
    packet = operator.overloadpacket
    if packet in _ONLY_RESERVE:
        return NOTHING
    written = _written(operator)
    given, results = _tensors((*args, *kwargs.values())), _tensors(out)
    if not written and not _makes(given, results):
        return NOTHING
    moved = 0
    for place, value in [*enumerate(args), *kwargs.items()]:
        tensors = _tensors(value)
        size = sum(map(_bytes, tensors))
        if place in written:
            only_written = isinstance(place, str) or packet in _NOT_READ
            moved += size if only_written else 2 * size
        elif place == 0 and packet in _LOOK_UP:
            moved += min(size, sum(map(_bytes, results)))
        else:
            moved += size
    given_storages = {tensor.untyped_storage()._cdata for tensor in given}
    moved += sum(
        _bytes(tensor)
        for tensor in results
        if tensor.untyped_storage()._cdata not in given_storages
    )
    return Work(_launches(packet, args), moved)


def _launches(packet: Any, args: tuple[Any, ...]) -> int:
    """Return 1; more for lists of tensors too long for one launch."""
    lists = [value for value in args if isinstance(value, list | tuple) and _tensors(value)]
    if not packet.__name__.startswith("_foreach_") or not lists:
        return 1
    most: int = _TENSORS_OF_A_LAUNCH[min(len(lists), max(_TENSORS_OF_A_LAUNCH))]
    blocks: int = sum(-(-tensor.numel() // _NUMBERS_OF_A_BLOCK) for tensor in lists[0])
    return max(-(-len(lists[0]) // most), -(-blocks // _BLOCKS_OF_A_LAUNCH))


@functools.cache
def _written(operator: Any) -> frozenset[int | str]:
    """Return which arguments an operator writes: places, and names of those that are only results
    (``out=``).
    """
    found: set[int | str] = set()
    for place, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.add(argument.name if argument.kwarg_only else place)
    return frozenset(found)


def _makes(given: list[Tensor], results: list[Tensor]) -> bool:
    """Say whether a result lies in memory that isn't an argument's."""
    storages = {tensor.untyped_storage()._cdata for tensor in given}
    return any(tensor.untyped_storage()._cdata not in storages for tensor in results)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's elements, each place in memory once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else min(size, 1)
    return count * tensor.dtype.itemsize
