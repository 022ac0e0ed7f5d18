"""Selection: which records a claim looks at, and the axes that it fits along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reformer_bench.spec.record import Outcome, Record

if TYPE_CHECKING:
    from reformer_bench.analysis.judging import Claim

Records = Sequence[Record]


def length(record: Record) -> float:
    """Return the number of tokens of a sequence."""
    return record.case.length


def depth(record: Record) -> float:
    """Return the number of layers."""
    return record.case.model.n_layers


def width(record: Record) -> float:
    """Return the width of the feed-forward layer, d_ff."""
    return record.case.model.d_ff


def rounds(record: Record) -> float:
    """Return the number of hash rounds."""
    return record.case.model.n_hashes


def of_suites(claim: Claim, records: Records) -> list[Record]:
    """Return the records of the suites that measure a claim."""
    return [record for record in records if record.case.suite in claim.suites]


def where(
    records: Records,
    *,
    attention: str | None = None,
    residual: str | None = None,
    chunked: bool | None = None,
    keep: Callable[[Record], bool] = lambda record: True,
) -> list[Record]:
    """Return the records whose model has this attention, residual and chunking, whatever its
    variant is called.
    """
    return [
        record
        for record in records
        if (attention is None or set(record.case.model.attention) == {attention})
        and (residual is None or record.case.model.residual == residual)
        and (chunked is None or (record.case.model.ff_chunks > 1) == chunked)
        and keep(record)
    ]


def at_longest(records: Records) -> list[Record]:
    """Return the records of the longest length at which any case finished, so that no fit mixes
    lengths.
    """
    ended = [length(record) for record in records if record.outcome is Outcome.OK]
    return where(records, keep=lambda r: length(r) == max(ended, default=0))
