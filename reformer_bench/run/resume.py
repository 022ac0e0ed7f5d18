"""Rules for when a folder that already holds a run may be continued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reformer_bench.run import decide as skip
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Environment, Outcome, Record
from reformer_bench.schema.units import format_bytes, format_tokens
from reformer_bench.store import Run, RunInfo

# Versions of packages that a run does not use may change, and so may what is free of the memory
# that a container is given.
_FREE = frozenset({"packages"})


def check_continues(
    run: Run, wanted: RunInfo, cases: Sequence[Case], *, same_host: bool = True
) -> None:
    """Refuse to mix two runs in one folder: InputError with the first thing that differs.

    ``same_host`` False lets the jobs of a cluster run on different machines of one kind.
    """
    if run.info is None:
        raise InputError(f"--out {run.path}: has records but no run.json: take another folder")
    if run.info.suite.name != wanted.suite.name:
        raise InputError(
            f"--out {run.path}: holds a run of suite {run.info.suite.name!r}, "
            f"not {wanted.suite.name!r}: take another folder"
        )
    if run.info.memory_budget_bytes != wanted.memory_budget_bytes:
        raise InputError(
            f"--out {run.path}: was measured under a memory budget of "
            f"{_budget(run.info.memory_budget_bytes)}, not {_budget(wanted.memory_budget_bytes)}: "
            "take another folder"
        )
    difference = _difference(run.info.environment, wanted.environment, same_host)
    if difference is not None:
        raise InputError(
            f"--out {run.path}: was measured in another environment ({difference}): "
            "take another folder"
        )
    _check_cases(run, cases)


def reopened(
    run: Run, cases: Iterable[Case], limit_s: Callable[[Case], float], *, retry: bool
) -> list[Record]:
    """The records of a run that don't keep their cases from being run again.

    Those that met a time limit, where ``limit_s`` gives the case more now; with ``retry`` every one
    without a result; and those that were skipped for one of them.
    """
    asked = {case.id for case in cases}
    known = [record for record in run.records if record.case_id in asked]
    again = {
        record.case_id
        for record in known
        if record.outcome is not Outcome.OK and (retry or _has_longer(record, run, limit_s))
    }
    standing = [record for record in run.records if record.case_id not in again]
    again |= {
        record.case_id
        for record in known
        if record.outcome is Outcome.SKIPPED and skip.stopped_by(record.case, standing) is None
    }
    return [record for record in known if record.case_id in again]


def _has_longer(record: Record, run: Run, limit_s: Callable[[Case], float]) -> bool:
    """Whether a case that met its time limit gets more time now."""
    if record.outcome is not Outcome.TIMEOUT:
        return False
    before = record.time_limit_s
    if before is None and run.info is not None and run.info.suite.variants:
        # Written before records said it.
        before = run.info.suite.on(record.case.device_kind).case_timeout_s
    return before is not None and limit_s(record.case) > before


def _budget(count: int | None) -> str:
    return "none" if count is None else format_bytes(count)


def _difference(before: Environment, now: Environment, same_host: bool) -> str | None:
    """Return the first field in which two environments differ, with both values; None where they
    agree.
    """
    free = _FREE if same_host else _FREE | {"hostname_hash"}
    for field in Environment.model_fields:
        old, new = getattr(before, field), getattr(now, field)
        if field not in free and old != new:
            return f"{field}: {old!r} then, {new!r} now"
    return None


def _check_cases(run: Run, cases: Iterable[Case]) -> None:
    """Refuse two models of one name: a case in the place of a recorded one must be the
    same case.
    """
    recorded: dict[tuple[object, ...], Record] = {_place(r.case): r for r in run.records}
    for case in cases:
        record = recorded.get(_place(case))
        if record is not None and record.case_id != case.id:
            raise InputError(
                f"--out {run.path}: {case.variant} at {format_tokens(case.length)} tokens was "
                f"measured with {_changed(record.case, case)}: take another folder"
            )


def _place(case: Case) -> tuple[object, ...]:
    return (*case.series, case.length)


def _changed(before: Case, now: Case) -> str:
    old, new = _flat(before), _flat(now)
    key = next(key for key in new if old.get(key) != new[key])
    return f"{key} = {old.get(key)!r}, not {new[key]!r}"


def _flat(case: Case) -> dict[str, object]:
    data = case.model_dump(mode="json")
    model = data.pop("model")
    return data | {f"model.{key}": value for key, value in model.items()}
