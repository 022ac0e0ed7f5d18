"""A table that loses nothing in a narrow terminal: it takes its heads out, or stacks its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | Text

_GAP = 2
_NARROW_GAP = 1
_INDENT = 2
_INDENTED = (0, 0, 0, _INDENT)


@dataclass(frozen=True)
class Column:
    """A column: its header, its side, and whether its text may be folded."""

    header: str
    right: bool = False
    least: int | None = None
    """Of prose: the narrowest it is folded to. None: figures, which are never folded or cut."""


@dataclass(frozen=True)
class Row:
    """A row's cells, one for each column, in one style."""

    cells: Sequence[Cell]
    style: str = ""


@dataclass(frozen=True)
class FittedTable:
    """Rows under their headers as long as every figure fits.

    Where not, the first ``heads`` columns become a line above each row, once for rows that share
    them; where that is too wide as well, a row becomes lines of ``header value``.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    heads: int = 1
    title: str = ""
    headed: bool = False
    """Whether the heads stand above their rows however wide the terminal is."""
    once: bool = False
    """Whether rows that share their heads show them in the first only."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        if self.title:
            yield Text(self.title, style="italic")
        for gap in (_GAP, _NARROW_GAP):
            widths = None if self.headed else self._widths(0, room, gap)
            if widths is not None:
                rows = self._unrepeated() if self.once else self.rows
                yield self._table(0, rows, widths, gap)
                return
        for gap in (_GAP, _NARROW_GAP):
            widths = self._widths(self.heads, room - _INDENT, gap)
            if widths is not None:
                yield from self._under_heads(widths, gap)
                return
        yield from self._stacked(room)

    def _widths(self, start: int, room: int, gap: int) -> list[int] | None:
        """Return the widths of the columns from ``start`` on; None where they don't fit."""
        natural = [self._natural(index) for index in range(start, len(self.columns))]
        least = [
            width if column.least is None else min(width, column.least)
            for column, width in zip(self.columns[start:], natural, strict=True)
        ]
        spare = room - sum(least) - gap * (len(least) - 1)
        if spare < 0:
            return None
        widths = []
        for narrow, wide in zip(least, natural, strict=True):
            widths.append(min(wide, narrow + spare))
            spare -= widths[-1] - narrow
        return widths

    def _natural(self, index: int) -> int:
        cells = [self.columns[index].header, *(_plain(row.cells[index]) for row in self.rows)]
        return max(cell_len(line) for cell in cells for line in cell.split("\n"))

    def _table(self, start: int, rows: Iterable[Row], widths: Sequence[int], gap: int) -> Table:
        # The box itself leaves one column between two.
        padding = (0, gap - 1, 0, 0)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=padding, pad_edge=False)
        for column, width in zip(self.columns[start:], widths, strict=True):
            table.add_column(
                column.header,
                justify="right" if column.right else "left",
                width=width,
                no_wrap=column.least is None,
                header_style="default",
            )
        for row in rows:
            table.add_row(*row.cells[start:], style=row.style)
        return table

    def _under_heads(self, widths: Sequence[int], gap: int) -> Iterator[RenderableType]:
        # The headers come first, as they are everybody's.
        yield Padding(self._table(self.heads, (), widths, gap), _INDENTED)
        for rows in self._groups():
            table = self._table(self.heads, rows, widths, gap)
            table.show_header = False
            yield self._head(rows[0])
            yield Padding(table, _INDENTED)

    def _stacked(self, room: int) -> Iterator[RenderableType]:
        for rows in self._groups():
            yield self._head(rows[0])
            for row in rows:
                yield from self._lines(row, room - _INDENT)

    def _lines(self, row: Row, room: int) -> Iterator[RenderableType]:
        pairs: list[str] = []
        n_prose = 0
        for column, cell in zip(self.columns[self.heads :], row.cells[self.heads :], strict=True):
            words = _plain(cell)
            if not words or words == "–":
                continue
            if column.least is None:
                pairs.append(f"{column.header} {words}".replace("\n", " ").strip())
                continue
            # The first text of a row explains itself.
            said = f"{column.header}: {words}" if n_prose else words
            n_prose += 1
            yield Padding(Text(said, style=row.style), _INDENTED)
        for line in _folded(pairs, room):
            yield Padding(Text(line, style=row.style), _INDENTED)

    def _groups(self) -> Iterator[list[Row]]:
        def head(row: Row) -> list[str]:
            return [_plain(cell) for cell in row.cells[: self.heads]]

        for _, rows in groupby(self.rows, key=head):
            yield list(rows)

    def _unrepeated(self) -> Iterator[Row]:
        for first, *others in self._groups():
            yield first
            for row in others:
                blank = ("",) * self.heads
                yield Row((*blank, *row.cells[self.heads :]), row.style)

    def _head(self, row: Row) -> Text:
        cells = [cell for cell in row.cells[: self.heads] if _plain(cell)]
        text = Text(", ").join(cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        text.stylize(f"bold {row.style}".strip(), 0, len(text))
        return text


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell


def _folded(pairs: Iterable[str], room: int) -> list[str]:
    """Put pairs into lines, none of them broken."""
    lines: list[str] = []
    for pair in pairs:
        longer = f"{lines[-1]}  {pair}" if lines else pair
        if lines and cell_len(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(pair)
    return lines
