"""Progress in a terminal and elsewhere: of a run, case by case, and of predictions."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from reformer_bench.report.frames import CaseRow
from reformer_bench.report.words import outcome_words
from reformer_bench.run.session import Standing
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import counted, format_bytes, format_tokens

_BAR_WIDTH = 20
_LENGTH_WIDTH = 8
_INDENT = " " * 6
_BETWEEN_LINES_S = 15.0
"""From one line of a task to the next, where there is no terminal."""

Tell = Callable[..., None]
"""Called with nothing when one more is done, or with ``now=`` to say what is being worked on."""


@contextmanager
def progress_of(
    what: str,
    total: int,
    *,
    noun: str = "case",
    quiet: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Tell]:
    """Show on stderr how far a task of ``total`` parts is, while the block runs.

    A terminal has a bar, anything else a line now and then. ``what`` is the task's name, as in
    "predicting the memory of".
    """
    console = console or Console(stderr=True, highlight=False)
    if quiet or total == 0:
        yield lambda *, now=None: None
    elif console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)

            def tell(*, now: str | None = None) -> None:
                text = what if now is None else f"{what}: {now}"
                bar.update(task, advance=now is None, description=text)

            yield tell
    else:
        lines = _TaskLines(console, what, counted(total, noun), clock)
        yield lines.tell
        lines.end()


class _TaskLines:
    """A line at the start and the end of a task, and every quarter of a minute between."""

    def __init__(self, console: Console, what: str, total: str, clock: Callable[[], float]) -> None:
        self._console, self._what, self._total = console, what, total
        self._clock = clock
        self._began = self._last = clock()
        self._done = 0
        self._print(total)

    def tell(self, *, now: str | None = None) -> None:
        """Take note that one more is done, or that something else is worked on."""
        self._done += now is None
        if self._clock() - self._last >= _BETWEEN_LINES_S:
            self._last = self._clock()
            at = "" if now is None else f", at {now}"
            self._print(f"{self._done} of {self._total}{at}")

    def end(self) -> None:
        """Say that all are done."""
        self._print(f"{self._total} done in {self._clock() - self._began:.0f} s")

    def _print(self, words: str) -> None:
        self._console.print(f"{self._what}: {words}", markup=False, soft_wrap=True)


@contextmanager
def progress_of_run(
    console: Console, cases: Sequence[Case], *, quiet: bool = False
) -> Iterator[Callable[[Standing], None]]:
    """Show how far a run is, while the block runs: of each standing that is told.

    A terminal has a live line below the finished cases, anything else a line per finished case.
    """
    if quiet:
        yield lambda standing: None
    elif console.is_terminal:
        line = LiveLine(console, cases)
        with line.live:
            yield line.tell
    else:
        yield PlainLines(console, cases).tell


class PlainLines:
    """One aligned line per finished case, and one for all that were not started for one reason."""

    def __init__(self, console: Console, cases: Sequence[Case]) -> None:
        self._console = console
        self._width = max((len(case.variant) for case in cases), default=0)
        # What all cases share needn't be on every line.
        self._workloads = len({case.workload for case in cases}) > 1
        self._length_width = max((len(_length_words(case)) for case in cases), default=0)

    def tell(self, standing: Standing) -> None:
        """Print the lines of what has just been written."""
        done = standing.done - len(standing.records)
        # Lines are broken where they are read, and not in a file, where they are looked through.
        broken = self._console.is_terminal or "COLUMNS" in os.environ
        width = self._console.width if broken else None
        for group in _groups(standing.records):
            done += len(group)
            number = f"{max(done, 0)}/{standing.total}".rjust(2 * len(str(standing.total)) + 1)
            name, *rest = self._columns(group)
            for line in _fitted([f"[{number}] {name}", *rest], width):
                self._console.print(line, markup=False, soft_wrap=True)

    def _columns(self, group: Sequence[Record]) -> list[str]:
        """Return the cells of a line about records of one series."""
        record = group[0]
        lengths = _length_words(record.case, group[-1].case)
        columns = [f"{record.case.variant:<{self._width}}", f"{lengths:>{self._length_width}}"]
        columns += [f"{record.case.workload:<10}"] if self._workloads else []
        if not record.finished:
            message = record.message or "no reason given"
            skipped = record.outcome is Outcome.SKIPPED
            return [*columns, message if skipped else f"{outcome_words(record)}: {message}"]
        speed = CaseRow(record).rate
        noun = "tokens" if record.counts_tokens else "examples"
        shown = "–" if speed is None else f"{speed:,.0f} {noun}/s"
        peak = format_bytes(record.memory.peak_bytes)
        return [*columns, f"{peak:>9}", f"{shown:>14}", f"{record.wall_ms / 1e3:.1f} s".rjust(6)]


class LiveLine:
    """Finished cases scroll by, above a line about what runs and what is left."""

    def __init__(
        self,
        console: Console,
        cases: Sequence[Case],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = PlainLines(console, cases)
        self._console = console
        self._clock = clock
        self._standing: Standing | None = None
        self._since = clock()
        self._spinner = Spinner("dots")
        self.live = Live(
            console=console, transient=True, refresh_per_second=8, get_renderable=self.status
        )

    def tell(self, standing: Standing) -> None:
        """Take note that a case has been started or has ended."""
        self._lines.tell(standing)
        if not standing.records:
            self._standing, self._since = standing, self._clock()

    def status(self) -> RenderableType:
        """Show what runs now, and how far the run is; the time left goes on counting down."""
        standing = self._standing
        if standing is None:
            return Text("")
        self._spinner.update(text=Text(" ".join(case_name(standing.case).split()), style="bold"))
        left_s = standing.left_s
        if left_s is not None:
            left_s = max(0.0, left_s - (self._clock() - self._since))
        bar = ProgressBar(total=standing.total, completed=standing.done, width=_BAR_WIDTH)
        room = self._console.width - _BAR_WIDTH - 2
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(_state(standing, left_s, room), style="dim", no_wrap=True))
        return Group(self._spinner, line)


def case_name(case: Case, width: int = 0) -> str:
    """Name a case: ``reformer   4K × 2  train_step``."""
    length = f"{_length_words(case):>{_LENGTH_WIDTH}}"
    return f"{case.variant:<{width}}  {length}  {case.workload}"


def _fitted(columns: list[str], width: int | None) -> list[str]:
    """Put columns into lines of at most ``width``, broken between columns, and long ones between
    words.

    None asks for one line, however long. Lines after the first are indented.
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
    """Put records that were not started for one reason together, each other one by itself."""
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
    """Write ``4K``, ``4K..1M`` or ``4K × 2``: length, up to that of a last case, and batch."""
    text = format_tokens(case.length)
    if last is not None and last.length != case.length:
        text += f"..{format_tokens(last.length)}"
    return f"{text} × {case.batch}" if case.batch > 1 else text


def _state(standing: Standing, left_s: float | None, room: int) -> str:
    """Say how far a run is, as much of it as there is room for."""
    text = f"{standing.done} of {standing.total} cases"
    parts = []
    if left_s is not None:
        minutes, seconds = divmod(round(left_s), 60)
        left = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
        parts.append(f", about {left} left")
    if standing.peak_bytes is not None:
        parts.append(f", highest peak {format_bytes(standing.peak_bytes)}")
    for part in parts:
        if len(text) + len(part) > room:
            break
        text += part
    return text
