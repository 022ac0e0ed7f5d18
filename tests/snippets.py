"""Fenced blocks of the documentation, and the commands in its shell blocks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)

_FENCED = re.compile(r"^```(\S*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" where it names none) and what stands in it."""

    file: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it stands, to be found by whoever reads a failure."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A single command of a shell block, with what is set in its environment."""

    environment: dict[str, str]
    words: tuple[str, ...]

    def __str__(self) -> str:
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join([*settings, *self.words])


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path.name, text.count("\n", 0, found.start()) + 1, *found.groups())
        for found in _FENCED.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a shell or console block, one for each part of an ``&&``; no comments."""
    text = block.text.splitlines()
    if block.language == "console":
        text = [line.removeprefix("$ ") for line in text if line.startswith("$ ")]
    lines = (shlex.split(line, comments=True) for line in text)
    return [_command(part) for line in lines for part in _parts(line)]


def outputs(block: Block) -> list[list[str]]:
    """What a console block shows below each of its commands, line by line, without empty ones."""
    shown: list[list[str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            shown.append([])
        elif line.strip():
            shown[-1].append(line.rstrip())
    return shown


def is_shown_in(shown: list[str], printed: list[str]) -> bool:
    """Whether that was printed; a line with nothing but ``…`` stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0] == "…":
        return any(is_shown_in(shown[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and is_shown_in(shown[1:], printed[1:])


def _parts(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def _command(words: list[str]) -> Command:
    n_settings = next((i for i, word in enumerate(words) if not re.match(r"\w+=", word)), 0)
    settings = dict(word.split("=", 1) for word in words[:n_settings])
    return Command(settings, tuple(words[n_settings:]))
