"""Finds out whether a peer's library is installed, without importing it."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version

from reformer_bench.schema.errors import InputError

LIBRARIES = {"reformer-pytorch": "reformer_pytorch", "transformers": "transformers"}
"""The implementations that aren't ours, each with the module it needs."""


def check_installed(implementation: str) -> None:
    """Raise InputError, naming the extra to install, where a peer's library is missing."""
    module = LIBRARIES.get(implementation)
    if module is not None and importlib.util.find_spec(module) is None:
        raise InputError(
            f"{implementation} is not installed: pip install 'reformer-bench[peers]' "
            f"(implementation = {implementation!r} needs it)"
        )


def library_version(implementation: str) -> str:
    """Return name and version of a peer's library, as in ``transformers 5.1.0``."""
    return f"{implementation} {version(implementation)}"
