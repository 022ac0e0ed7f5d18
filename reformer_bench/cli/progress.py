"""The progress of a run: a live line in a terminal, a plain line per finished case elsewhere."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from reformer_bench.run.session import Progress
from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import format_bytes, format_tokens


class Reporter(Protocol):
    """What shows progress, between start and stop."""

    def start(self) -> None:
        """Begin to show progress."""

    def tell(self, progress: Progress) -> None:
        """Take note that a case has been started or has ended."""

    def stop(self) -> None:
        """Stop showing progress, and leave the terminal as it was."""


class Silent:
    """A reporter that shows nothing."""

    def start(self) -> None:
        """Do nothing at the start."""

    def tell(self, progress: Progress) -> None:
        """Do nothing for a case."""

    def stop(self) -> None:
        """Do nothing at the end."""


class PlainLines:
    """A reporter that prints one aligned line per finished case."""

    def __init__(self, console: Console, cases: list[Case]) -> None:
        self._console = console
        self._width = max((len(case.variant) for case in cases), default=0)

    def start(self) -> None:
        """Do nothing at the start."""

    def tell(self, progress: Progress) -> None:
        """Print the line of a case that has ended."""
        if progress.record is None:
            return
        number = f"{progress.done}/{progress.total}".rjust(2 * len(str(progress.total)) + 1)
        line = f"[{number}] {case_line(progress.record, self._width)}"
        self._console.print(line, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Do nothing at the end."""


class LiveLine:
    """A reporter that lets finished cases scroll by, and shows below what runs and what is left."""

    def __init__(self, console: Console, cases: list[Case]) -> None:
        self._lines = PlainLines(console, cases)
        self._live = Live(Text(""), console=console, transient=True, refresh_per_second=8)

    def start(self) -> None:
        """Take the bottom lines of the terminal."""
        self._live.start()

    def tell(self, progress: Progress) -> None:
        """Show the state."""
        self._lines.tell(progress)
        if progress.record is None:
            self._live.update(_status(progress))

    def stop(self) -> None:
        """Give the bottom lines back."""
        self._live.stop()


def make_reporter(console: Console, cases: list[Case], *, quiet: bool) -> Reporter:
    """Choose the reporter that suits a console."""
    if quiet:
        return Silent()
    return LiveLine(console, cases) if console.is_terminal else PlainLines(console, cases)


def case_name(case: Case, width: int = 0) -> str:
    """Write a case's name as ``reformer   4K × 2  train_step``."""
    batch = f" × {case.batch}" if case.batch > 1 else ""
    return f"{case.variant:<{width}}  {format_tokens(case.length) + batch:>8}  {case.workload}"


def case_line(record: Record, width: int = 0) -> str:
    """Write a finished case in one line: its name and its result."""
    name = f"{case_name(record.case, width):<{width + 22}}"
    if record.outcome is not Outcome.OK:
        return f"{name}  {record.outcome.value}: {record.message or 'no reason given'}"
    speed = record.timing.tokens_per_second if record.timing is not None else None
    shown = "–" if speed is None else f"{speed:,.0f} tokens/s"
    peak = format_bytes(record.memory.peak_bytes)
    return f"{name}  {peak:>9}  {shown:>18}  {record.wall_ms / 1e3:6.1f} s"


def _status(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 1))
    spinner = Spinner("dots", text=Text(f"{case_name(progress.case)}", style="bold"))
    grid.add_row(spinner)
    bar = ProgressBar(total=progress.total, completed=progress.done, width=30)
    left = "" if progress.left_s is None else f", about {_duration(progress.left_s)} left"
    peak = (
        ""
        if progress.peak_bytes is None
        else f", highest peak so far {format_bytes(progress.peak_bytes)}"
    )
    text = Text(f"{progress.done} of {progress.total} cases{left}{peak}", style="dim")
    line = Table.grid(padding=(0, 1))
    line.add_row(bar, text)
    grid.add_row(line)
    return grid


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
