"""Progress of predictions, on stderr: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

_QUIET_S = 15.0
"""Between two lines where there is no terminal."""

Tell = Callable[..., None]
"""Called with nothing when one more is done, or with ``now=`` to say what is being worked on."""


@contextmanager
def progress_of(
    what: str,
    total: int,
    *,
    unit: str = "cases",
    quiet: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Tell]:
    """Shows how far a task of ``total`` parts is, while the block runs.

    ``what`` is its name, as in "predicting the memory of".
    """
    console = console or Console(stderr=True, highlight=False)
    if quiet or total == 0:
        yield lambda *, now=None: None
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=total)

            def tell(*, now: str | None = None) -> None:
                text = what if now is None else f"{what}: {now}"
                bar.update(task, advance=now is None, description=text)

            yield tell
    else:
        lines = _Lines(console, what, total, unit, clock)
        yield lines.tell
        lines.end()


def _bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
    )
    return Progress(*columns, console=console, transient=True)


class _Lines:
    """A line at the start and the end, and every quarter of a minute between."""

    def __init__(
        self, console: Console, what: str, total: int, unit: str, clock: Callable[[], float]
    ) -> None:
        self._console, self._what, self._total, self._unit = console, what, total, unit
        self._clock = clock
        self._began = self._last = clock()
        self._done = 0
        self._now: str | None = None
        self._print(f"{what}: {_counted(total, unit)}")

    def tell(self, *, now: str | None = None) -> None:
        """One more is done, or something else is worked on."""
        self._now = now
        self._done += now is None
        if self._clock() - self._last >= _QUIET_S:
            self._last = self._clock()
            at = "" if self._now is None else f", at {self._now}"
            self._print(f"{self._what}: {self._done} of {_counted(self._total, self._unit)}{at}")

    def end(self) -> None:
        """All are done."""
        seconds = self._clock() - self._began
        self._print(f"{self._what}: {_counted(self._total, self._unit)} done in {seconds:.0f} s")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _counted(count: int, unit: str) -> str:
    return f"1 {unit.removesuffix('s')}" if count == 1 else f"{count} {unit}"
