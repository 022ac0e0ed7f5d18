"""A model that asks whether its tensors are fake is told that they are real.

Libraries ask in order not to read values while a graph is traced, and then take another way than a
real run does: transformers makes a causal mask in full where it would leave it to the attention
kernel (transformers.utils.import_utils, is_tracing).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._subclasses

_NAME = "FakeTensor"
_TORCH = str(Path(torch.__file__).parent)


class _Nothing:
    """The class that models get to see for that of fake tensors; it has no instances."""


@contextmanager
def fake_tensors_in_disguise() -> Iterator[None]:
    """Let only torch itself find the class of fake tensors in ``torch._subclasses``.

    A class that a module took from there, or from ``torch._subclasses.fake_tensor``, when it was
    imported stays what it is.
    """
    package = vars(torch._subclasses)
    fake_tensor = package.pop(_NAME, None)
    if fake_tensor is None:  # A recording around this one has hidden it.
        yield
        return

    def found(name: str) -> Any:
        if name != _NAME:
            raise AttributeError(f"module {torch._subclasses.__name__!r} has no attribute {name!r}")
        asked_by_torch = sys._getframe(1).f_code.co_filename.startswith(_TORCH)
        return fake_tensor if asked_by_torch else _Nothing

    package["__getattr__"] = found
    try:
        yield
    finally:
        del package["__getattr__"]
        package[_NAME] = fake_tensor
