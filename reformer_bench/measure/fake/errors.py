"""NotPredictableError says, in one line with its place, why a run can't be followed on fake
tensors.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedMutationAliasingException,
    UnsupportedOperatorException,
)

from reformer_bench.schema.errors import InputError


class NotPredictableError(InputError):
    """The code needs the values of tensors, which fake tensors don't have."""


_REFUSALS: dict[type[Exception], str] = {
    DataDependentOutputException: "reads a value out of a tensor",
    DynamicOutputShapeException: "makes a tensor whose shape depends on values",
    UnsupportedOperatorException: "has no rule for fake tensors",
    UnsupportedFakeTensorException: "does not work on fake tensors",
    UnsupportedMutationAliasingException: "does not work on fake tensors",
}
_IN_WORDS = ("data pointer", "FakeTensor", "Please convert all Tensors to FakeTensors")


@contextmanager
def explained() -> Iterator[None]:
    """Turn what fake tensors refuse into a NotPredictableError; other errors pass."""
    try:
        yield
    except tuple(_REFUSALS) as error:
        what = next(words for kind, words in _REFUSALS.items() if isinstance(error, kind))
        operator = getattr(error, "func", None) or error
        raise NotPredictableError(
            f"cannot be predicted without running it: {operator} {what}, at {_place(error)}"
        ) from error
    except (RuntimeError, AssertionError, TypeError) as error:
        text = " ".join(str(error).split())
        if not any(words in text for words in _IN_WORDS):
            raise
        raise NotPredictableError(
            f"cannot be predicted without running it: {text[:160]}, at {_place(error)}"
        ) from error


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame that is neither torch's nor this package's
    probes.
    """
    torch_root, ours = Path(torch.__file__).parent, Path(__file__).parent
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not {torch_root, ours} & set(Path(frame.filename).parents)
        and not frame.filename.startswith("<")
    ]
    return places[-1] if places else "an unknown line"
