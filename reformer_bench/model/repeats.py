"""Work that repeats is marked here, so that whoever follows a run's memory follows it
only once.

Parts of a sublayer, blocks of chunks and layers do the same again and again. Work marked here
changes tensors in place, keeps nothing it allocates, and frees nothing it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Follower(Protocol):
    """Decides whether marked work is run."""

    def __call__(self, key: Hashable, work: Callable[[], None], place: str | None) -> None:
        """``key`` decides the shapes of all that the work makes; ``place`` names it for people."""


_followers: list[Follower] = []


def repeat(
    key: Hashable, work: Callable[..., None], *arguments: Any, place: str | None = None
) -> None:
    """Run the work; where a run is followed, its follower may know already what it would do."""
    if not _followers:
        work(*arguments)
    else:
        _followers[-1](key, lambda: work(*arguments), place)


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """Hand work that is marked to a follower while the block runs."""
    _followers.append(follower)
    try:
        yield
    finally:
        _followers.pop()
