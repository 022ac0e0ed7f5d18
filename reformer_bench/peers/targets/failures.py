"""Failures of a target's own code, told in one line with the place in that code."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from reformer_bench.schema.errors import InputError
from reformer_bench.schema.target import TargetConfig

_OURS = Path(__file__).parents[2]
_TORCH = Path(torch.__file__).parent
_MESSAGE_LENGTH = 240


@contextmanager
def told_in_one_line(target: TargetConfig | None) -> Iterator[None]:
    """Turn what a target's code raises into an InputError, and what it prints into words on stderr,
    so that a command's own output stays whole; without a target nothing changes.

    torch's warning that a fake tensor, copied by that code, has no data is left out.
    """
    if target is None:
        yield
        return
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            yield
    except InputError as error:
        # With several models, the line has to say whose it is.
        if not str(error).startswith(str(target.name)):
            error.args = (f"{target.target}: {error}",)
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{target.target}: {failure_words(error)}") from error


def failure_words(error: BaseException) -> str:
    """Say what was raised, in one line, and where in code that is neither torch's nor ours."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}…"
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SystemExit):
        words = f"its code ends the program (SystemExit: {error.code})"
    line = code_line(error)
    return words if line is None else f"{words}, at {line}"


def code_line(error: BaseException) -> str | None:
    """Return file and line of the innermost frame of other people's code; None without one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        parents = Path(frame.filename).parents
        if _OURS not in parents and _TORCH not in parents and not frame.filename.startswith("<"):
            return f"{frame.filename}:{frame.lineno}"
    return None
