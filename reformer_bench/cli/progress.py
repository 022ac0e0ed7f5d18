"""The progress of a run: a live line in a terminal, a plain line per finished case elsewhere."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from reformer_bench.report.words import outcome_words
from reformer_bench.run.session import Progress
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import format_bytes, format_tokens

_BAR_WIDTH = 20
_LENGTH_WIDTH = 8
_INDENT = " " * 6


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
    """One aligned line per finished case, and one for all that were not started for one reason."""

    def __init__(self, console: Console, cases: list[Case]) -> None:
        self._console = console
        self._width = max((len(case.variant) for case in cases), default=0)
        # What all cases share needn't be on every line.
        self._workloads = len({case.workload for case in cases}) > 1
        self._length_width = max((len(_length_words(case)) for case in cases), default=0)

    def start(self) -> None:
        """Do nothing at the start."""

    def tell(self, progress: Progress) -> None:
        """Print the lines of what has just been written."""
        done = progress.done - len(progress.records)
        for group in _groups(progress.records):
            done += len(group)
            number = f"{max(done, 0)}/{progress.total}".rjust(2 * len(str(progress.total)) + 1)
            name, *rest = _columns(group, self._width, self._length_width, self._workloads)
            columns = [f"[{number}] {name}", *rest]
            for line in fitted(columns, self._line_width()):
                self._console.print(line, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Do nothing at the end."""

    def _line_width(self) -> int | None:
        """Where lines are broken; not in a file, where they are looked through."""
        broken = self._console.is_terminal or "COLUMNS" in os.environ
        return self._console.width if broken else None


class LiveLine:
    """A reporter that lets finished cases scroll by, and shows below what runs and what is left."""

    def __init__(
        self,
        console: Console,
        cases: list[Case],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = PlainLines(console, cases)
        self._console = console
        self._clock = clock
        self._progress: Progress | None = None
        self._since = clock()
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console, transient=True, refresh_per_second=8, get_renderable=self._status
        )

    def start(self) -> None:
        """Take the bottom lines of the terminal."""
        self._live.start()

    def tell(self, progress: Progress) -> None:
        """Show the state."""
        self._lines.tell(progress)
        if not progress.records:
            self._progress, self._since = progress, self._clock()

    def stop(self) -> None:
        """Give the bottom lines back."""
        self._live.stop()

    def _status(self) -> RenderableType:
        """What runs now, and how far the run is; the time left goes on counting down."""
        progress = self._progress
        if progress is None:
            return Text("")
        self._spinner.update(text=Text(" ".join(case_name(progress.case).split()), style="bold"))
        left_s = progress.left_s
        if left_s is not None:
            left_s = max(0.0, left_s - (self._clock() - self._since))
        bar = ProgressBar(total=progress.total, completed=progress.done, width=_BAR_WIDTH)
        room = self._console.width - _BAR_WIDTH - 2
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(_state(progress, left_s, room), style="dim", no_wrap=True))
        return Group(self._spinner, line)


def make_reporter(console: Console, cases: list[Case], *, quiet: bool) -> Reporter:
    """Choose the reporter that suits a console."""
    if quiet:
        return Silent()
    return LiveLine(console, cases) if console.is_terminal else PlainLines(console, cases)


def case_name(case: Case, width: int = 0) -> str:
    """``reformer   4K × 2  train_step``."""
    length = f"{_length_words(case):>{_LENGTH_WIDTH}}"
    return f"{case.variant:<{width}}  {length}  {case.workload}"


def case_line(record: Record, width: int = 0) -> str:
    """A finished case in one line: its name and what came out."""
    return "  ".join(_columns([record], width, _LENGTH_WIDTH, workloads=True))


def fitted(columns: list[str], width: int | None) -> list[str]:
    """Columns as lines of at most ``width``, broken between columns, and long ones between words.

    None: one line, however long. Lines after the first are indented.
    """
    line = "  ".join(columns)
    if width is None or len(line) <= width:
        return [line]
    *figures, last = columns
    if len(last) > width - len(_INDENT):
        # Words may begin on the first line; what is before them is short.
        return textwrap.wrap(
            line, width, subsequent_indent=_INDENT, break_on_hyphens=False, break_long_words=False
        )
    lines = [figures[0].rstrip()]
    for text in (column.strip() for column in [*figures[1:], last]):
        if len(lines[-1]) + 2 + len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(f"{_INDENT}{text}")
    return lines


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """Records that were not started for one reason together, each other one by itself."""
    groups: list[list[Record]] = []
    for record in records:
        before = groups[-1][-1] if groups else None
        if before is not None and (
            (before.case.series, before.outcome) == (record.case.series, record.outcome)
            and record.wall_ms == before.wall_ms == 0.0
        ):
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


def _length_words(case: Case, last: Case | None = None) -> str:
    """``4K``, ``4K..1M`` or ``4K × 2``: length, up to that of a last case, and batch."""
    text = format_tokens(case.length)
    if last is not None and last.length != case.length:
        text += f"..{format_tokens(last.length)}"
    return f"{text} × {case.batch}" if case.batch > 1 else text


def _columns(group: Sequence[Record], width: int, length_width: int, workloads: bool) -> list[str]:
    """The cells of a line about records of one series."""
    record = group[0]
    lengths = _length_words(record.case, group[-1].case)
    columns = [f"{record.case.variant:<{width}}", f"{lengths:>{length_width}}"]
    columns += [f"{record.case.workload:<10}"] if workloads else []
    if record.outcome is not Outcome.OK:
        return [*columns, _failure(record)]
    speed = record.timing.tokens_per_second if record.timing is not None else None
    shown = "–" if speed is None else f"{speed:,.0f} tokens/s"
    peak = format_bytes(record.memory.peak_bytes)
    return [*columns, f"{peak:>9}", f"{shown:>14}", f"{record.wall_ms / 1e3:.1f} s".rjust(6)]


def _failure(record: Record) -> str:
    message = record.message or "no reason given"
    if record.outcome is Outcome.SKIPPED:
        return message
    return f"{outcome_words(record)}: {message}"


def _state(progress: Progress, left_s: float | None, room: int) -> str:
    """How far a run is, as much of it as there is room for."""
    text = f"{progress.done} of {progress.total} cases"
    parts = [] if left_s is None else [f", about {_duration(left_s)} left"]
    if progress.peak_bytes is not None:
        parts.append(f", highest peak {format_bytes(progress.peak_bytes)}")
    for part in parts:
        if len(text) + len(part) > room:
            break
        text += part
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
