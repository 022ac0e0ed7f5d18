"""Groups of records: those that stand in one table or figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reformer_bench.schema.record import Environment, Record


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

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, in order of first appearance."""
        return tuple(dict.fromkeys(record.case.variant for record in self.records))

    @property
    def environments(self) -> list[Environment]:
        """Every record's environment, in order."""
        return [record.environment for record in self.records]

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
    alike: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        case = record.case
        alike.setdefault((case.suite, case.workload, case.device, case.seed), []).append(record)
    groups = []
    for key, members in alike.items():
        batches = sorted({record.case.batch for record in members})
        shapes = {(record.case.length, record.case.batch) for record in members}
        if len(batches) > 1 and len(shapes) == len({length for length, _ in shapes}):
            groups.append(_group(key, None, members))
            continue
        for batch in batches:
            chosen = [record for record in members if record.case.batch == batch]
            groups.append(_group(key, batch, chosen))
    return groups


def _group(key: tuple[str, str, str, int], batch: int | None, records: Sequence[Record]) -> Group:
    """Make a group in which the last record of each case counts; a resumed run may have tried one
    twice.
    """
    last = {(record.case.variant, record.case.length): record for record in records}
    return Group(*key, batch, tuple(last.values()), len(records) - len(last))
