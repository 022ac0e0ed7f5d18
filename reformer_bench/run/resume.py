"""Rules for when a folder that already holds a run may be continued."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reformer_bench.run.decide import stopped_by
from reformer_bench.run.expand import Plan
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Environment, Outcome, Record
from reformer_bench.schema.units import format_bytes, format_tokens
from reformer_bench.store import RECORDS, Run, RunInfo, load_run

# Versions of packages that a run does not use may change, and so may what is free of the memory
# that a container is given.
_FREE = frozenset({"packages"})


def check_folder(folder: Path) -> None:
    """Raise InputError where a folder has files that aren't a run's."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORDS).is_file():
        raise InputError(f"--out {folder}: is not empty and holds no run: take another folder")


def check_retry(folder: Path | None) -> None:
    """Raise InputError where there is no run whose cases could be run again."""
    if folder is None:
        raise InputError("--retry: give the folder of the run with --out")
    if not (folder / RECORDS).is_file():
        raise InputError(f"--retry: --out {folder} holds no run")


def load_earlier(folder: Path, wanted: RunInfo, plan: Plan, *, same_host: bool) -> Run | None:
    """Return the run that a folder already holds, once it is sure that this one continues it."""
    if not (folder / RECORDS).is_file():
        return None
    earlier = load_run(folder)
    if earlier.records:
        check_continues(earlier, wanted, plan.cases, same_host=same_host)
    return earlier


def check_continues(
    run: Run, wanted: RunInfo, cases: Iterable[Case], *, same_host: bool = True
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


def reopened(run: Run, plan: Plan, *, retry: bool) -> list[Record]:
    """Return the records of a run that don't keep their cases from being run again.

    These are records that met a time limit, where the plan gives their case more now; with
    ``retry`` every one without a result; and those that were skipped for one of them.
    """
    asked = {case.id for case in plan.cases}
    known = [record for record in run.records if record.case_id in asked]
    again = {
        record.case_id
        for record in known
        if not record.finished and (retry or _has_longer(record, run, plan))
    }
    standing = [record for record in run.records if record.case_id not in again]
    again |= {
        record.case_id
        for record in known
        if record.outcome is Outcome.SKIPPED and stopped_by(record.case, standing) is None
    }
    return [record for record in known if record.case_id in again]


def _has_longer(record: Record, run: Run, plan: Plan) -> bool:
    """Whether a case that met its time limit gets more time now."""
    if record.outcome is not Outcome.TIMEOUT:
        return False
    before = record.time_limit_s
    if before is None and run.info is not None and run.info.suite.variants:
        # Written before records said it.
        before = run.info.suite.on(record.case.device_kind).case_timeout_s
    return before is not None and plan.limit_s(record.case) > before


def _budget(count: int | None) -> str:
    return "none" if count is None else format_bytes(count)


def _difference(before: Environment, now: Environment, same_host: bool) -> str | None:
    """Return the first field in which two environments differ, with both values, if any does."""
    free = _FREE if same_host else _FREE | {"hostname_hash"}
    for field in Environment.model_fields:
        old, new = getattr(before, field), getattr(now, field)
        if field not in free and old != new:
            return f"{field}: {old!r} then, {new!r} now"
    return None


def _check_cases(run: Run, cases: Iterable[Case]) -> None:
    """Refuse two models of one name: a case in the place of a recorded one must be that case."""
    recorded = {(record.case.series, record.case.length): record for record in run.records}
    for case in cases:
        record = recorded.get((case.series, case.length))
        if record is not None and record.case_id != case.id:
            raise InputError(
                f"--out {run.path}: {case.variant} at {format_tokens(case.length)} tokens was "
                f"measured with {_changed(record.case, case)}: take another folder"
            )


def _changed(before: Case, now: Case) -> str:
    old, new = _flat(before), _flat(now)
    key = next(key for key in new if old.get(key) != new[key])
    return f"{key} = {old.get(key)!r}, not {new[key]!r}"


def _flat(case: Case) -> dict[str, object]:
    data = case.model_dump(mode="json")
    model = data.pop("model")
    return data | {f"model.{key}": value for key, value in model.items()}
