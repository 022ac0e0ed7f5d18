"""What fake tensors refuse, told as one line that names operator and code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedMutationAliasingException,
    UnsupportedOperatorException,
)

from reformer_bench.measure.fake.reads import NotPredictableError, Reads
from reformer_bench.measure.fake.source import is_torchs, place

_REFUSALS: dict[type[Exception], str] = {
    DataDependentOutputException: "reads a value out of a tensor",
    DynamicOutputShapeException: "makes a tensor whose shape depends on values",
    UnsupportedOperatorException: "has no rule for fake tensors",
    UnsupportedFakeTensorException: "does not work on fake tensors",
    UnsupportedMutationAliasingException: "does not work on fake tensors",
}
_WORDS_OF_REFUSALS = ("data pointer", "FakeTensor", "Please convert all Tensors to FakeTensors")


@contextmanager
def refusals_explained(reads: Reads) -> Iterator[None]:
    """Turn what fake tensors refuse into a NotPredictableError, and what fails after a size was
    taken to be as large as it can be; other errors pass.
    """
    try:
        yield
    except Exception as error:
        what = next((words for kind, words in _REFUSALS.items() if isinstance(error, kind)), None)
        text = " ".join(str(error).split())
        if what is not None:
            text = f"{getattr(error, 'func', None) or error} {what}"
        elif isinstance(error, RuntimeError | AssertionError | TypeError) and any(
            words in text for words in _WORDS_OF_REFUSALS
        ):
            text = text[:160]
        elif isinstance(error, RuntimeError | ValueError) and reads.bounded is not None:
            text = f"{text[:160]} (after {reads.bounded})"
        else:
            raise
        raise NotPredictableError(
            f"cannot be predicted without running it: {text}, at {_code_line(error)}"
        ) from error


def _code_line(error: BaseException) -> str:
    """Return file and line of the innermost frame that is neither torch's nor this package's
    probes.
    """
    lines = [
        place(frame.filename, frame.lineno or 0)
        for frame in traceback.extract_tb(error.__traceback__)
        if not is_torchs(frame.filename)
    ]
    return lines[-1] if lines else "an unknown line"
