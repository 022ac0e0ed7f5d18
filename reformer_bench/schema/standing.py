"""Says for which kind of device tensors on the CPU stand: in a prediction they may be a GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_standing: list[str] = []


@contextmanager
def standing_for(kind: str) -> Iterator[None]:
    """Let tensors on the CPU stand for those of a kind of device while the block runs: a model of
    this package then does what it would do there.
    """
    _standing.append(kind)
    try:
        yield
    finally:
        _standing.pop()


def kind_of(device_type: str) -> str:
    """Return the kind of a device by its type, or what it stands for."""
    return _standing[-1] if _standing and device_type == "cpu" else device_type
