"""Tables that say what fills memory at a predicted peak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.text import Text

from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.report.words import WORKLOADS, outcome_words
from reformer_bench.schema.case import Case
from reformer_bench.schema.explanation import (
    KINDS,
    Code,
    Explanation,
    Holder,
    bytes_by_kind,
    layer_of,
    merged,
)
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import counted, format_bytes, format_tokens

Grouping = Literal["tensor", "layer", "line", "kind"]

_NO_MODULE = "(in no module)"
_NO_LINE = "(no line known)"
_LEAST_PATH = 24
_GAP = "  "
_MODULES_SHOWN = 2


def explanation_table(
    explanation: Explanation, title: str, grouping: Grouping = "tensor", top: int = 12
) -> RenderableType:
    """Show where in the step a predicted peak lies, and what fills it, the largest first.

    Args:
        explanation: What is shown.
        title: What was predicted, in words.
        grouping: What makes a row: tensors alike, a layer, a line of code, or a kind of memory.
        top: How many rows there are; one more has the sum of the others.
    """
    return Stack(
        Text(title, style="bold"), _Moment(explanation), _TABLES[grouping](explanation, top)
    )


def explained_record(
    record: Record, explanation: Explanation | None, note: str | None, grouping: Grouping, top: int
) -> RenderableType:
    """Show how a case ended, and what fills its predicted peak, or why that isn't known."""
    title = Text(case_title(record.case), style="bold")
    style = "red" if record.outcome.is_stop else "green"
    ended = {Outcome.OK: "finished", Outcome.SKIPPED: "skipped"}.get(record.outcome)
    title.append(f" · {record.case_id} · ", "default").append(ended or outcome_words(record), style)
    lines = [Text(text, style="yellow") for text in (record.message, note) if text]
    if explanation is None:
        return Stack(title, *lines)
    return Stack(title, *lines, *_body(explanation, grouping, top))


def case_title(case: Case) -> str:
    """Say which case is explained."""
    return (
        f"{case.variant} · {format_tokens(case.length)} × {case.batch} · {WORKLOADS[case.workload]}"
    )


def grouped(explanation: Explanation, grouping: Grouping, top: int) -> dict[str, Any]:
    """Return an explanation as JSON holds it, with the largest groups only."""
    if grouping == "tensor":
        return explanation.largest(top).model_dump(mode="json")
    moment = explanation.model_dump(mode="json", exclude={"holders", "rest_bytes", "rest_count"})
    groups = _groups(explanation, grouping)[:top]
    rows = [
        {
            grouping: name,
            "held_bytes": group.held_bytes,
            "count": group.count,
            **{f"{kind}_bytes": n for kind, n in bytes_by_kind(group.holders).items()},
        }
        for name, group in groups
    ]
    return {**moment, "groups": rows, "rest_bytes": _left(explanation, groups)}


def _body(explanation: Explanation, grouping: Grouping, top: int) -> list[RenderableType]:
    return [_Moment(explanation), _TABLES[grouping](explanation, top)]


class _Moment:
    """Says where in the step the peak lies."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation = explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self.explanation
        step = "a later step" if found.step == "warm" else "the first step"
        when = "build" if found.phase == "build" else f"{found.phase} phase of {step}"
        yield Text(f"{format_bytes(found.peak_bytes)} at the peak, in the {when}, reached by")
        ran, module = f"{_GAP}{_ran(found)}", f"in {found.module}" if found.module else ""
        both = f"{ran} {module}"
        lines = [both] if len(both) <= options.max_width else [ran, f"{_GAP}{module}"]
        yield from (Text(line.rstrip()) for line in lines)
        for words, line in (("at", found.line), ("called from", found.your_line)):
            if line is not None:
                room = options.max_width - len(f"{_GAP}{words} ")
                yield Text(f"{_GAP}{words} {shortened(line, room)}")
        yield ""


def _ran(code: Code) -> str:
    """Say in words what ran: ``inside mm, backward of addmm``."""
    words = f"inside {code.operator}" if code.inside else code.operator
    if code.backward_of is not None:
        words += f", backward of {code.backward_of}"
    return f"{words}, recomputed" if code.recomputed else words


@dataclass(frozen=True)
class _CodeRow:
    """Figures, words, and the lines of code that they are about."""

    figures: tuple[str, ...]
    words: str
    line: str | None
    your_line: str | None = None

    def lines(self, room: int) -> str:
        """Return the lines within so many characters."""
        if self.line is None or self.your_line is None or room < 3 * _LEAST_PATH:
            return shortened(self.line or "", room)
        own = f" from {shortened(self.your_line, room // 3)}"
        return shortened(self.line, room - len(own)) + own


@dataclass(frozen=True)
class _CodeTable:
    """Rows in one line each where the terminal has room for the paths, else with the code below."""

    headers: tuple[str, ...]
    rows: Sequence[_CodeRow]
    rest: tuple[str, str, str] | None
    """What else there is: its bytes, its share, and how many tensors they are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(zip(self.headers, *(row.figures for row in self.rows), strict=True))
        widths = [max(map(len, column)) for column in columns]
        left = sum(widths) + len(_GAP) * len(widths)
        wide = max((len(row.words) for row in self.rows), default=0)
        room = options.max_width - left - wide - len(_GAP)
        longest = max((len(row.lines(options.max_width)) for row in self.rows), default=0)
        in_one = room >= min(longest, 2 * _LEAST_PATH)
        head = self._figures(self.headers, widths)
        head += f"{'what made it':{wide}}{_GAP}line" if in_one else ""
        yield Text(head.rstrip(), "dim")
        for row in self.rows:
            figures = self._figures(row.figures, widths)
            if in_one:
                yield Text(f"{figures}{row.words:{wide}}{_GAP}{row.lines(room)}".rstrip())
                continue
            yield Text(figures.rstrip())
            yield from self._below(row, sum(widths[:2]) + 2 * len(_GAP), options.max_width)
        if self.rest is not None:
            held, share, count = self.rest
            yield Text(f"{held:>{widths[0]}}{_GAP}{share:>{widths[1]}}{_GAP}{count}", "dim")

    @staticmethod
    def _figures(cells: Sequence[str], widths: Sequence[int]) -> str:
        """Put cells into columns: the first two to the right, words to the left."""
        both = zip(cells, widths, strict=True)
        return "".join(
            (cell.rjust(width) if place < 2 else cell.ljust(width)) + _GAP
            for place, (cell, width) in enumerate(both)
        )

    @staticmethod
    def _below(row: _CodeRow, indent: int, width: int) -> Iterator[Text]:
        room = width - indent
        words = row.words if len(row.words) <= room else f"{row.words[: room - 1]}…"
        left = room - len(words) - len(_GAP)
        lines = row.lines(room)
        if words and left >= min(len(lines), _LEAST_PATH):
            text = Text(" " * indent + words)
            yield text.append(_GAP + row.lines(left), "dim") if lines else text
            return
        for part, style in ((words, ""), (lines, "dim")):
            if part:
                yield Text(" " * indent + part, style)


def _by_tensor(explanation: Explanation, top: int) -> RenderableType:
    found = explanation.largest(top)
    rows = [
        _CodeRow(
            figures=(*_held(h.held_bytes, found), h.kind, _tensors(h)),
            words=_what(h),
            line=h.line,
            # Said once where it is the line that the peak was called from.
            your_line=None if h.your_line == found.your_line else h.your_line,
        )
        for h in found.holders
    ]
    headers = ("held", "share", "kind", "tensors")
    return _CodeTable(headers, rows, _rest(found, found.rest_bytes, found.rest_count))


def _by_line(explanation: Explanation, top: int) -> RenderableType:
    groups = _groups(explanation, "line")
    rows = []
    for name, group in groups[:top]:
        kinds = bytes_by_kind(group.holders).most_common(1)[0][0]
        modules = list(dict.fromkeys(h.module for h in merged(group.holders) if h.module))
        operators = list(dict.fromkeys(h.operator for h in merged(group.holders)))
        words = f"{_several(operators)} in {_several(modules)}" if modules else _several(operators)
        figures = (*_held(group.held_bytes, explanation), kinds, counted(group.count, "tensor"))
        rows.append(_CodeRow(figures, words, name))
    headers = ("held", "share", "mostly", "tensors")
    return _CodeTable(headers, rows, _rest_of(explanation, groups, top))


def _by_layer(explanation: Explanation, top: int) -> RenderableType:
    groups = _groups(explanation, "layer")
    rows = []
    for name, group in groups[:top]:
        kinds = bytes_by_kind(group.holders)
        cells = [format_bytes(kinds[kind]) if kinds[kind] else "–" for kind in KINDS]
        rows.append(Row((name, *_held(group.held_bytes, explanation), *cells)))
    left = _left(explanation, groups[:top])
    if left:
        rows.append(Row(("all else", *_held(left, explanation), *[""] * len(KINDS)), "dim"))
    headers = ("held", "share", "params", "grads", "optim", "activ", "temp")
    columns = [Column("layer"), *(Column(header, right=True) for header in headers)]
    return FittedTable(columns, rows)


def _by_kind(explanation: Explanation, top: int) -> RenderableType:
    groups = _groups(explanation, "kind")
    rows = []
    for name, group in groups[:top]:
        most = merged(group.holders)[0]
        words = f"{_what(most)}: {format_bytes(most.held_bytes)}"
        figures = (*_held(group.held_bytes, explanation), name, counted(group.count, "tensor"))
        rows.append(_CodeRow(figures, f"most by {words}", most.line))
    headers = ("held", "share", "kind", "tensors")
    return _CodeTable(headers, rows, _rest_of(explanation, groups, top))


_TABLES: dict[Grouping, Callable[[Explanation, int], RenderableType]] = {
    "tensor": _by_tensor,
    "layer": _by_layer,
    "line": _by_line,
    "kind": _by_kind,
}


@dataclass(frozen=True)
class _Group:
    holders: list[Holder]

    @property
    def held_bytes(self) -> int:
        return sum(holder.held_bytes for holder in self.holders)

    @property
    def count(self) -> int:
        return sum(holder.count for holder in self.holders)


def _groups(explanation: Explanation, grouping: Grouping) -> list[tuple[str, _Group]]:
    """Return the holders by their layer, line or kind, the largest group first."""
    groups: dict[str, _Group] = {}
    for holder in explanation.holders:
        name = {
            "layer": layer_of(holder.module) or _NO_MODULE,
            "line": holder.line or _NO_LINE,
            "kind": holder.kind,
        }[grouping]
        groups.setdefault(name, _Group([])).holders.append(holder)
    return sorted(groups.items(), key=lambda item: -item[1].held_bytes)


def _left(explanation: Explanation, groups: Iterable[tuple[str, _Group]]) -> int:
    """Return the bytes of the peak that are in none of some groups."""
    return explanation.peak_bytes - sum(group.held_bytes for _, group in groups)


def _held(held_bytes: int, explanation: Explanation) -> tuple[str, str]:
    share = held_bytes / explanation.peak_bytes
    return format_bytes(held_bytes), "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def _rest(explanation: Explanation, rest_bytes: int, count: int) -> tuple[str, str, str] | None:
    if not rest_bytes:
        return None
    return (*_held(rest_bytes, explanation), counted(count, "other tensor"))


def _rest_of(
    explanation: Explanation, groups: Sequence[tuple[str, _Group]], top: int
) -> tuple[str, str, str] | None:
    """Return what there is besides the first groups."""
    count = explanation.rest_count + sum(group.count for _, group in groups[top:])
    return _rest(explanation, _left(explanation, groups[:top]), count)


def _what(holder: Holder) -> str:
    """Say what something is, by its name and, where that says more, by what made it."""
    is_named = holder.tensor and holder.kind in ("parameters", "optimizer")
    return ": ".join(part for part in (holder.name, "" if is_named else _ran(holder)) if part)


def _tensors(holder: Holder) -> str:
    """Say what the tensors are: ``2 × float32 [1024, 256]``."""
    words = "" if holder.count == 1 else f"{holder.count:,} × "
    if holder.dtype is None or holder.shape is None:
        return words.removesuffix(" × ")
    return f"{words}{holder.dtype} {list(holder.shape)}"


def _several(names: Iterable[str]) -> str:
    """Name the first of several, and count the others."""
    shown = list(names)
    more = len(shown) - _MODULES_SHOWN
    return ", ".join(shown[:_MODULES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def shortened(line: str, room: int) -> str:
    """Return ``path/to/file.py:12`` in so many characters: folders in the middle are left out, the
    file's name and the line never are.
    """
    if len(line) <= room:
        return line
    first, *others = line.split("/")
    for start in range(1, len(others)):
        found = "/".join([first, "…", *others[start:]])
        if len(found) <= room:
            return found
    return f"…/{others[-1]}" if others else line
