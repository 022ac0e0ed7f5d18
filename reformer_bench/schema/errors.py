"""The one error that means the user's input was wrong, and how validation failures become it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
_NOT_A_KEY = re.compile(r"[\[\](]|^constrained-|^function-")


class InputError(Exception):
    """The input was wrong; the text is one line that says what, where and what is allowed."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was meant: one that begins with it, or else one spelt much like it."""
    names = {each.casefold(): each for each in known}
    written = name.casefold()
    longer = [each for each in names if written and each.startswith(written)]
    found = longer or difflib.get_close_matches(written, names, n=1)
    return names[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'reformer'?``, to follow a wrong name; empty where none is near."""
    near = nearest(name, known)
    return "" if near is None else f", did you mean {near!r}?"


def validated(
    model: type[Model], data: Any, *, where: str, name: Callable[[str], str] = str
) -> Model:
    """Return the data as a model, or raise InputError naming place, key, value and the rule.

    ``where`` is the file or option the data came from; ``name`` turns a dotted key into the one
    that the user wrote.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {_explained(error, model, name)}") from None


def _explained(error: ValidationError, model: type[BaseModel], name: Callable[[str], str]) -> str:
    """Say the first thing wrong in a validation error, in one line."""
    first = error.errors()[0]
    # Pydantic also puts the names of union members and of validators into the place.
    parts = [str(part) for part in first["loc"] if not _NOT_A_KEY.search(str(part))]
    key = name(".".join(parts))
    if first["type"] == "extra_forbidden":
        table = _model_at(model, first["loc"][:-1])
        known = sorted(table.model_fields)
        near = nearest(parts[-1], known) or _nearest_inside(parts[-1], table)
        above = key.rpartition(".")[0]
        hint = f", did you mean {'.'.join(filter(None, (above, near)))!r}?" if near else ""
        return f"unknown key {key!r}{hint} (allowed: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{key!r} is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error" and not key:
        return message
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    # A choice among names: pydantic lists them in quotes.
    names = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
    hint = did_you_mean(str(first["input"]), names)
    return f"{key} = {shown}: {message[:1].lower() + message[1:]}{hint}"


def _nearest_inside(name: str, model: type[BaseModel]) -> str | None:
    """Return the key of a table inside that was meant: for ``n_hash`` ``model.n_hashes``."""
    places: dict[str, str] = {}
    for table, field in model.model_fields.items():
        place, inner = table, _inner_model(field.annotation)
        if get_origin(field.annotation) is dict:
            # Of tables by kind, as device.cpu and device.cuda, the first stands for all; tables
            # whose names are the user's have no place to name.
            kinds = get_args(get_args(field.annotation)[0])
            if not kinds:
                continue
            place = f"{table}.{kinds[0]}"
        for key in () if inner is None else inner.model_fields:
            places.setdefault(key, f"{place}.{key}")
    near = nearest(name, places)
    return None if near is None else places[near]


def _model_at(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel]:
    """Return the model reached by following ``path``."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        inner = _inner_model(field.annotation) if field is not None else None
        if inner is not None:
            current = inner
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn what the system, or the encoding, refuses inside into an InputError.

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
    """Turn what the system refuses inside into an InputError; ``option`` named the path."""
    try:
        yield
    except OSError as error:
        where = f"{option} {path}" if option else str(path)
        raise InputError(f"{where}: cannot be written ({why(error)})") from None


def read_text(path: Path, expected: str) -> str:
    """Return a file's text, as UTF-8; InputError where it can't be read or is no text."""
    with reading(path, expected):
        return path.read_text(encoding="utf-8")


def why(error: OSError) -> str:
    """Return what the system said, without number and path."""
    return error.strerror or str(error) or type(error).__name__
