"""Files that the user names: what can't be read or written becomes one line that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reformer_bench.spec.errors import InputError


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turns what the system, or the encoding, refuses inside into an InputError.

    ``expected`` says what the path should have been, as in ``a run's folder``.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({why(error)}); expected {expected}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text (byte {error.start}); expected {expected}"
        ) from None


@contextmanager
def writing(path: Path, option: str = "") -> Iterator[None]:
    """Turns what the system refuses inside into an InputError; ``option`` named the path."""
    try:
        yield
    except OSError as error:
        where = f"{option} {path}" if option else str(path)
        raise InputError(f"{where}: cannot be written ({why(error)})") from None


def read_text(path: Path, expected: str) -> str:
    """The text of a file, as UTF-8. InputError where it can't be read or is no text."""
    with reading(path, expected):
        return path.read_text(encoding="utf-8")


def why(error: OSError) -> str:
    """What the system said, without number and path."""
    return error.strerror or str(error) or type(error).__name__
