"""A baseline is the records of a run that later runs are compared with, as one file in git."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import (
    Environment,
    Memory,
    Outcome,
    Record,
    Timing,
    latest_of_each,
)

BASELINE_VERSION: Final = 1

_FREE = frozenset({"packages", "commit"})
"""The fields of the environment that may differ between the records of one baseline."""


class BaselineRecord(BaseModel):
    """A record without its environment, and without what doesn't bear on a comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case
    outcome: Outcome
    message: str | None = None
    memory: Memory = Memory()
    timing: Timing | None = None
    settings: dict[str, str] = {}


class Baseline(BaseModel):
    """The records of one environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline_version: Literal[1] = BASELINE_VERSION
    made_at: str
    """When its run began, in ISO 8601, UTC."""
    environment: Environment
    cases: tuple[BaselineRecord, ...]

    def records(self) -> list[Record]:
        """Return its records, whole again but for what a baseline doesn't keep."""
        return [
            Record(
                case_id=kept.case.id,
                started_at=self.made_at,
                wall_ms=0.0,
                environment=self.environment,
                **{field: getattr(kept, field) for field in BaselineRecord.model_fields},
            )
            for kept in self.cases
        ]


def baseline_of(records: Sequence[Record]) -> Baseline:
    """Make the baseline of a run's records; of a case with several records the last
    counts.

    Raises InputError where there are none, or where they come from different environments.
    """
    if not records:
        raise InputError("a baseline needs records, and the run has none")
    first = records[0].environment
    for record in records:
        for field in Environment.model_fields.keys() - _FREE:
            if getattr(record.environment, field) != getattr(first, field):
                raise InputError(
                    f"a baseline needs records of one environment; these differ in {field}"
                )
    return Baseline(
        made_at=min(record.started_at for record in records),
        environment=first,
        cases=tuple(_kept(record) for record in latest_of_each(records)),
    )


def _kept(record: Record) -> BaselineRecord:
    fields = {field: getattr(record, field) for field in BaselineRecord.model_fields}
    # Lines of code move from one commit to the next, and would make a diff of every case.
    fields["memory"] = record.memory.model_copy(update={"predicted_explanation": None})
    return BaselineRecord(**fields)
