"""Groups of records that belong in one table or plot: same workload, device, seed and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reformer_bench.spec.record import Outcome, Record


@dataclass(frozen=True)
class Group:
    """Records that share everything but variant and length."""

    suite: str
    workload: str
    device: str
    seed: int
    batch: int | None
    """The batch of all records; None where each length has its own."""
    records: tuple[Record, ...]
    replaced: int = 0
    """How many earlier records were left out because a later one is of the same case."""
    variants: tuple[str, ...] = field(default=())
    """The variants, in order of first appearance."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """All lengths, in ascending order."""
        return tuple(sorted({record.case.length for record in self.records}))

    def cell(self, variant: str, length: int) -> Record | None:
        """Return the record of a variant at a length; None where there is none."""
        for record in self.records:
            if record.case.variant == variant and record.case.length == length:
                return record
        return None

    def series(self, variant: str) -> list[Record]:
        """Return the records of a variant, by length."""
        found = [record for record in self.records if record.case.variant == variant]
        return sorted(found, key=lambda record: record.case.length)

    def batch_at(self, length: int) -> int:
        """Return the batch that this group has at a length."""
        return next(r.case.batch for r in self.records if r.case.length == length)


def group_records(records: Iterable[Record]) -> list[Group]:
    """Sort records into groups, in order of first appearance.

    A sweep that keeps the number of tokens fixed (1,024 × 32, 2,048 × 16, ...) has another batch at
    each length, and makes one group. Otherwise every batch makes a group of its own.
    """
    buckets: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        case = record.case
        key: tuple[str, str, str, int] = (case.suite, case.workload, case.device, case.seed)
        buckets.setdefault(key, []).append(record)
    groups = []
    for key, members in buckets.items():
        batches: dict[int, set[int]] = {}
        for record in members:
            batches.setdefault(record.case.length, set()).add(record.case.batch)
        distinct = sorted({record.case.batch for record in members})
        if len(distinct) > 1 and all(len(found) == 1 for found in batches.values()):
            groups.append(_group(key, None, members))
            continue
        for batch in distinct:
            chosen = [record for record in members if record.case.batch == batch]
            groups.append(_group(key, batch, chosen))
    return groups


def _group(key: tuple[str, str, str, int], batch: int | None, records: Sequence[Record]) -> Group:
    """Make a group in which the last record of each case counts; a resumed run may have tried one
    twice.
    """
    last: dict[tuple[str, int], Record] = {}
    for record in records:
        last[record.case.variant, record.case.length] = record
    variants = tuple(dict.fromkeys(record.case.variant for record in records))
    return Group(*key, batch, tuple(last.values()), len(records) - len(last), variants)


def stopped(record: Record) -> bool:
    """Whether the case was tried or predicted, but did not finish."""
    return record.outcome not in (Outcome.OK, Outcome.SKIPPED)
