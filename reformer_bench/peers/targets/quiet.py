"""Keeps transformers' remarks on configurations out of what a command prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ASKED_FOR = "TRANSFORMERS_VERBOSITY"
"""The variable by which a user asks transformers for more, or for less."""


@contextmanager
def errors_only() -> Iterator[None]:
    """Have transformers, where it is imported, say nothing below an error inside; what a user asks
    for by its own variable is kept.
    """
    logging: Any = sys.modules.get("transformers.utils.logging")
    if logging is None or _ASKED_FOR in os.environ:
        yield
        return
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
