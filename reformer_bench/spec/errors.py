"""The one error that means the user's input was wrong, and how validation failures become it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
_NOT_A_KEY = re.compile(r"[\[\](]|^constrained-|^function-")


class InputError(Exception):
    """The input was wrong; the text is one line that says what, where and what is allowed."""


def validated(
    model: type[Model], data: Any, *, where: str, name: Callable[[str], str] = str
) -> Model:
    """Return ``model.model_validate(data)``, or raise InputError naming place, key, value and the
    rule.

    ``where`` is the file or option the data came from; ``name`` turns a dotted key into the one
    that the user wrote.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, model, name)}") from None


def explain(
    error: ValidationError, model: type[BaseModel], name: Callable[[str], str] = str
) -> str:
    """Say the first thing wrong in a validation error, in one line."""
    first = error.errors()[0]
    # Pydantic also puts the names of union members and of validators into the place.
    parts = [str(part) for part in first["loc"] if not _NOT_A_KEY.search(str(part))]
    key = name(".".join(parts))
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, first["loc"][:-1]))
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        return f"unknown key {key!r}{hint} (allowed: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{key!r} is missing"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error" and not key:
        return message
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{key} = {shown}: {message[:1].lower() + message[1:]}"


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the names of the fields of the model reached by following ``path``."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        inner = _inner_model(field.annotation) if field is not None else None
        if inner is not None:
            current = inner
    return list(current.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
