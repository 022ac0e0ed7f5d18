"""by_operator remembers what a function says of each operator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


def by_operator(function: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """Remember the results of a function of one operator by the operator's id.

    ``functools.cache`` would ask for the operator's hash, which is Python code in torch and takes
    longer than the look-up.
    """
    # The operator is held beside its result, so that no other one gets its id.
    found: dict[int, tuple[Any, _T]] = {}

    @functools.wraps(function)
    def remembered(operator: Any) -> _T:
        known = found.get(id(operator))
        if known is None:
            known = found[id(operator)] = (operator, function(operator))
        return known[1]

    return remembered
