"""The console that commands print to: as wide as the terminal, or of a fixed width without one."""

from __future__ import annotations

import os

from rich.console import Console

_PLAIN_WIDTH = 120


def make_console() -> Console:
    """Make a console on stdout; output that goes to a file or a pipe is 120 columns wide."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(width=_PLAIN_WIDTH, highlight=False)
    return console


def warn(words: str) -> None:
    """Write a warning on stderr, in a terminal broken between words, elsewhere on one line."""
    console = Console(stderr=True, highlight=False)
    console.print(f"Warning: {words}", markup=False, soft_wrap=not console.is_terminal)
