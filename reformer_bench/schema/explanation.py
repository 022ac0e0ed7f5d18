"""An explanation says what fills memory at a predicted peak, and where in a step the peak lies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from reformer_bench.schema.phases import Phase

Kind = Literal["parameters", "gradients", "optimizer", "activations", "temporaries"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MOST_KEPT: Final = 12
_MOST_CHARACTERS: Final = 2400
"""What of an explanation a record keeps: so many groups of memory, fewer where they'd be longer."""

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


class Code(BaseModel):
    """A place in the code, by what ran there. What isn't known or doesn't apply is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    module: str = ""
    """The dotted name of the module; a ``*`` in it stands for several numbers."""
    operator: str
    """PyTorch's operator, as in ``addmm``."""
    inside: bool = False
    """Whether it is what the operator holds while it runs, besides its results."""
    backward_of: str | None = None
    """The operator of the forward pass whose gradient is computed. ``line`` is that operator's."""
    recomputed: bool = False
    """Whether a backward pass runs a part of the forward pass again."""
    line: str | None = None
    """``file:line``, the innermost outside PyTorch. A package's file begins with its name; others
    are relative to the folder in which the prediction was made, where that is shorter."""
    your_line: str | None = None
    """Where ``line`` is in an installed package: the innermost line outside of any."""

    @model_serializer(mode="wrap")
    def _briefly(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what isn't set: an explanation has many parts, and few of them have all."""
        fields = type(self).model_fields
        values: dict[str, Any] = serialize(self)
        return {
            name: value
            for name, value in values.items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


class Holder(Code):
    """Tensors alike that are alive at a peak: of one kind, made at one place in the code."""

    held_bytes: int
    """What all of them take."""
    count: int = 1
    kind: Kind
    tensor: str = ""
    """The name in its module of a parameter, of the parameter that a gradient is of, or of a
    buffer; of optimizer state, with its key in brackets, as in ``weight[exp_avg]``."""
    shape: tuple[int, ...] | None = None
    """None where it isn't a tensor, or where there are tensors of several shapes."""
    dtype: str | None = None

    @property
    def name(self) -> str:
        """The dotted name of what is held, or of the module it belongs to."""
        return ".".join(part for part in (self.module, self.tensor) if part)


class Explanation(Code):
    """What fills a predicted peak, and what was running: the operator whose memory was the last
    that the peak needed, its line and its module.
    """

    peak_bytes: int
    step: Literal["cold", "warm"]
    """Whether the peak is that of the first step, or of a later one."""
    phase: Phase
    holders: tuple[Holder, ...]
    """The largest first."""
    rest_bytes: int = 0
    """What everything else holds: with it, the sum is the peak."""
    rest_count: int = 0

    def largest(self, count: int) -> Explanation:
        """Return it with the largest groups only, where layers that are alike are one."""
        holders = merged(self.holders)
        kept, others = holders[:count], holders[count:]
        return self.model_copy(
            update={
                "holders": tuple(kept),
                "rest_bytes": self.rest_bytes + sum(other.held_bytes for other in others),
                "rest_count": self.rest_count + sum(other.count for other in others),
            }
        )

    def kept(self) -> Explanation:
        """Return what of it a record keeps: the largest groups, in 2,400 characters of JSON."""
        found = self.largest(_MOST_KEPT)
        while len(found.model_dump_json()) > _MOST_CHARACTERS and found.holders:
            found = self.largest(len(found.holders) - 1)
        return found


def merged(holders: Iterable[Holder]) -> list[Holder]:
    """Return holders where those that differ in numbers of modules only are one, largest first."""
    found: dict[Holder, list[Holder]] = {}
    for holder in holders:
        alike = {"module": _NUMBER.sub("*", holder.module), "held_bytes": 0, "count": 0}
        found.setdefault(holder.model_copy(update=alike), []).append(holder)
    sums = [
        (parts[0] if len({part.module for part in parts}) == 1 else pattern).model_copy(
            update={
                "held_bytes": sum(part.held_bytes for part in parts),
                "count": sum(part.count for part in parts),
            }
        )
        for pattern, parts in found.items()
    ]
    return sorted(sums, key=lambda holder: -holder.held_bytes)


def layer_of(module: str) -> str:
    """Return the layer that a module belongs to: its name up to the first number in it, or all of
    it.
    """
    names = module.split(".")
    first = next((place for place, name in enumerate(names) if name == "*" or name.isdigit()), None)
    return module if first is None else ".".join(names[: first + 1])


def bytes_by_kind(holders: Iterable[Holder]) -> Counter[Kind]:
    """Return what holders hold, by the kind of memory."""
    counter: Counter[Kind] = Counter()
    for holder in holders:
        counter[holder.kind] += holder.held_bytes
    return counter
