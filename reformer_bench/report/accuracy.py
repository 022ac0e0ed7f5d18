"""Predicted peaks beside the measured ones, case by case, and what they come to in a line."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import counted, format_bytes, format_tokens

Pair = tuple[int, int]
"""A case's predicted and measured peak, in bytes."""


def accuracy_table(records: Sequence[Record]) -> FittedTable:
    """Show each case's predicted and measured peak, and the difference in bytes and percent."""
    columns = [
        Column("variant"),
        Column("workload"),
        *(Column(n, right=True) for n in ("length", "batch", "predicted", "measured", "off by")),
        Column("", right=True),
    ]
    rows = []
    for record in records:
        case, pair, memory = record.case, peaks(record), record.memory
        cells = [case.variant, case.workload, format_tokens(case.length), str(case.batch)]
        measured = memory.peak_bytes if _ran(record) else None
        cells += [format_bytes(memory.predicted_peak_bytes), format_bytes(measured)]
        cells += ["–", ""] if pair is None else _difference(pair)
        rows.append(Row(cells))
    return FittedTable(columns, rows)


def accuracy_words(records: Sequence[Record]) -> list[str]:
    """Return the summary: how many predictions are exact, the worst, and the cases without a pair.

    Raises InputError where no case has both a predicted and a measured peak.
    """
    found = [(record, peaks(record)) for record in records]
    pairs = {record.case: pair for record, pair in found if pair is not None}
    if not pairs:
        raise InputError(
            "--accuracy: no case of the run has both a predicted and a measured peak "
            "(runs predict unless --no-predict is given)"
        )
    exact = sum(predicted == measured for predicted, measured in pairs.values())
    under = [case for case, (predicted, measured) in pairs.items() if predicted < measured]
    words = f"{exact} of {len(pairs)} equal to the byte"
    if exact < len(pairs):
        worst = max(pairs, key=lambda case: abs(_share(pairs[case])))
        words += f"; worst {_share(pairs[worst]):+.3%} ({worst.variant})"
    if under:
        names = ", ".join(dict.fromkeys(case.variant for case in under))
        words += f"; {len(under)} below what was measured: {names}"
    else:
        words += "; none below what was measured"
    lines = [f"{words}."]
    for record in records:
        if not record.finished:
            lines.append(
                f"{record.case.variant}: {record.outcome}: {record.message or 'no reason'}"
            )
    lacking = sum(record.finished and record.case not in pairs for record in records)
    if lacking:
        lines.append(f"{counted(lacking, 'case')} without a predicted or a measured peak.")
    return lines


def peaks(record: Record) -> Pair | None:
    """Return a case's predicted and measured peak; None where one of them is missing."""
    predicted, measured = record.memory.predicted_peak_bytes, record.memory.peak_bytes
    if predicted is None or measured is None or not _ran(record):
        return None
    return predicted, measured


def _ran(record: Record) -> bool:
    return record.finished and record.is_measured


def _difference(pair: Pair) -> list[str]:
    off_by = pair[0] - pair[1]
    return [f"{off_by:+,} B", f"{_share(pair):+.3%}"] if off_by else ["0", ""]


def _share(pair: Pair) -> float:
    """Return the difference as a share of the measured peak."""
    predicted, measured = pair
    return (predicted - measured) / measured if measured else 0.0
