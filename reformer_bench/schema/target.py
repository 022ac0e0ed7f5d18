"""A target names anybody's model by the code that builds it; nothing is imported here."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.model import PRESETS, Dtype

_FORMS = "package.module:factory, path/to/file.py:factory, hf:TYPE, hf:PATH, or a preset"
_NAME = r"[^\W\d]\w*"


class TargetKind(StrEnum):
    """How a target names the code."""

    FILE = "file"
    """``path/to/file.py:factory``: a function or class in a file."""
    MODULE = "module"
    """``package.module:factory``: a function or class in an installed module."""
    TRANSFORMERS = "hf"
    """``hf:llama`` or ``hf:PATH``: a type of model of transformers, or a saved configuration."""


@dataclass(frozen=True)
class TargetName:
    """A target's text, taken apart."""

    kind: TargetKind
    place: str
    """The file, the module, or the type or path after ``hf:``."""
    factory: str = ""
    """The name of the function or class; empty for transformers."""

    @property
    def runs_code(self) -> bool:
        """Whether the target is code of the user's own, and not only a configuration."""
        return self.kind is not TargetKind.TRANSFORMERS

    @property
    def path(self) -> Path | None:
        """The file that decides the model; None where the target names none."""
        if self.kind is TargetKind.FILE:
            return Path(self.place)
        if self.kind is TargetKind.MODULE or not is_path(self.place):
            return None
        place = Path(self.place).expanduser()
        return place / "config.json" if place.is_dir() else place

    def __str__(self) -> str:
        if self.kind is TargetKind.TRANSFORMERS:
            return f"hf:{self.place}"
        return f"{self.place}:{self.factory}"


def is_path(text: str) -> bool:
    """Say whether the text after ``hf:`` is a path, and not a type of model."""
    return any(sign in text for sign in ("/", os.sep, ".", "~"))


def parse_target(text: str, *, option: str = "--model") -> TargetName:
    """Take a target's text apart; InputError, with the forms there are, for any other text."""
    kind, colon, rest = text.partition(":")
    if kind == "hf" and colon:
        if not rest:
            raise InputError(f"{option}: {text!r} names no type of model (allowed: {_FORMS})")
        return TargetName(TargetKind.TRANSFORMERS, rest)
    place, colon, factory = text.rpartition(":")
    if not colon:
        hint = did_you_mean(text, PRESETS)
        raise InputError(f"{option}: {text!r} is not a model{hint} (allowed: {_FORMS})")
    if not re.fullmatch(rf"{_NAME}(\.{_NAME})*", factory):
        raise InputError(
            f"{option}: {text!r}: after the colon comes the name of a function or class "
            f"(allowed: {_FORMS})"
        )
    if place.endswith(".py"):
        return TargetName(TargetKind.FILE, place, factory)
    if re.fullmatch(rf"{_NAME}(\.{_NAME})*", place):
        return TargetName(TargetKind.MODULE, place, factory)
    raise InputError(f"{option}: {text!r} is not a model (allowed: {_FORMS})")


class TargetConfig(BaseModel):
    """Somebody's model, described by what builds it: the place of ModelConfig in a case."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    target: str
    """As in ``--model``; a file's path is relative to the current folder where it is below it."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """The factory's arguments, or fields of transformers' configuration."""
    sha256: str | None = None
    """Of the file that decides the model; None where there is none."""
    dtype: Dtype = "float32"
    """What the module's parameters are turned into after it is built."""

    @field_validator("target")
    @classmethod
    def _parsed(cls, text: str) -> str:
        try:
            parse_target(text, option="target")
        except InputError as error:
            raise ValueError(str(error)) from None
        return text

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def name(self) -> TargetName:
        """The target, taken apart."""
        return parse_target(self.target)

    def decides(self) -> dict[str, JsonValue]:
        """Return what the case's id covers: of a file its name and content, not its folder."""
        name, data = self.name, self.model_dump(mode="json")
        if self.sha256 is not None:
            place = Path(name.place).name
            data["target"] = str(TargetName(name.kind, place, name.factory))
        return data


def target_config(
    text: str,
    arguments: dict[str, JsonValue],
    *,
    dtype: Dtype = "float32",
    option: str = "--model",
) -> TargetConfig:
    """Make the config of a target; a file it names is read, and nothing is imported.

    Args:
        text: The target.
        arguments: For the factory, or fields of transformers' configuration.
        dtype: What parameters are turned into.
        option: Where the text was written, for error messages.

    Raises:
        InputError: The text is no target, or its file can't be read.
    """
    name = parse_target(placed_target(text, Path()), option=option)
    found = None if name.path is None else hash_of(name.path, option)
    return TargetConfig(target=str(name), arguments=arguments, dtype=dtype, sha256=found)


def placed_target(text: str, folder: Path) -> str:
    """Return a target whose path, where it has a relative one, begins at a folder; of a text that
    is no target, the text.
    """
    try:
        name = parse_target(text)
    except InputError:
        return text
    if name.path is None:
        return text
    place = folder / Path(name.place).expanduser()
    return str(TargetName(name.kind, _shown(place), name.factory))


def hash_of(path: Path, option: str = "--model") -> str:
    """Return a file's SHA-256; InputError where it can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{option}: {path}: cannot be read ({reason}); expected the file of a model"
        ) from None


def _shown(path: Path) -> str:
    """Return a path as it is kept: relative to the current folder where it is below it."""
    full, here = Path(os.path.abspath(path)), Path.cwd()
    if not full.is_relative_to(here):
        return full.as_posix()
    shown = full.relative_to(here).as_posix()
    # After ``hf:``, a path is told from a type of model by its signs.
    return shown if is_path(shown) else f"./{shown}"


Implementation = Literal["native", "reformer-pytorch", "transformers", "target"]
"""Whose code a model is: this package's, a peer's on the same task, or a target's own."""
