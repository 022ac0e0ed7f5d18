"""``--variants`` and ``--seq-len`` of commands that show a run: a part of its records."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.spec.record import Record

_MOST_NAMES = 12


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The two options, named as those of ``run`` are."""
    command = click.option(
        "--seq-len", metavar="LENGTHS", help="Only these lengths, e.g. 512,1K or 4K..64K."
    )(command)
    return click.option("--variants", metavar="A,B", help="Only these variants.")(command)


def part_of(records: Sequence[Record], variants: str | None, seq_len: str | None) -> list[Record]:
    """The records of the variants and lengths named, all where nothing is.

    Raises InputError where a name or a length is not in the run. A range takes every length of
    the run from its first to its last, not doublings only.
    """
    chosen = list(records)
    if variants is not None:
        names = _variants(variants, list(dict.fromkeys(r.case.variant for r in records)))
        chosen = [record for record in chosen if record.case.variant in names]
    if seq_len is not None:
        lengths = _lengths(seq_len, sorted({record.case.length for record in records}))
        chosen = [record for record in chosen if record.case.length in lengths]
    if not chosen:
        raise InputError("--variants and --seq-len: the run has no such variant at such a length")
    return chosen


def _variants(text: str, known: Sequence[str]) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(names - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        # A run of many suites has more names than a line holds.
        more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
        hint = f"it has: {', '.join(known[:_MOST_NAMES])}{more}"
        if close:
            hint = f"did you mean {close[0]!r}?"
        raise InputError(f"--variants: the run has no variant {name!r}; {hint}")
    if not names:
        raise InputError(f"--variants: names at least one of: {', '.join(known)}")
    return names


def _lengths(text: str, known: Sequence[int]) -> set[int]:
    from reformer_bench.spec.units import format_tokens, parse_length, parse_lengths

    try:
        parse_lengths(text)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None
    found: set[int] = set()
    for item in text.split(","):
        first, dots, last = item.partition("..")
        low = parse_length(first)
        high = parse_length(last) if dots else low
        within = {length for length in known if low <= length <= high}
        if not within:
            shown = ", ".join(map(format_tokens, known))
            raise InputError(f"--seq-len: the run has no length {item.strip()} (it has: {shown})")
        found |= within
    return found
