"""Coverage: how much of a run has a result, why the rest has none, and how busy the machine was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from reformer_bench.report.words import outcome_words
from reformer_bench.schema.record import Outcome, Record

_RETRIED = frozenset({Outcome.TIMEOUT, Outcome.KILLED, Outcome.ERROR})


def coverage_words(records: Sequence[Record]) -> str:
    """Say how many cases were measured, and why the others were not."""
    missing = [record for record in records if not record.finished]
    if not missing:
        n_cases = len(records)
        return "The case was measured." if n_cases == 1 else f"All {n_cases} cases measured."
    measured = f"{len(records) - len(missing)} of {len(records)} cases measured"
    return f"{measured}. Without a result: {_reasons(missing)}."


def retry_words(records: Sequence[Record], folder: Path) -> str | None:
    """Say how to run again what might end otherwise another time; None where nothing would."""
    if any(record.outcome in _RETRIED for record in records):
        return f"--out {folder} --retry runs again what has no result."
    return None


def kept_words(n_cases: int, known: Sequence[Record], again: Sequence[Record]) -> str:
    """Say what is done with the records that a folder holds already."""
    open_ids = {record.case_id for record in again}
    kept = [record for record in known if record.case_id not in open_ids]
    missing = [record for record in kept if not record.finished]
    measured = len(kept) - len(missing)
    text = f"{measured} of {n_cases} cases have a result there already and are not repeated"
    if missing:
        text += f"; {len(missing)} have none ({_reasons(missing)}): --retry runs them again"
    if again:
        text += f"; {len(again)} without one are run again ({_reasons(again)})"
    return text


def load_words(records: Sequence[Record]) -> str | None:
    """Say how much of a run was measured on a busy machine; None where nothing was."""
    loads = [
        record.load
        for record in records
        if record.load is not None and record.was_disturbed and record.finished
    ]
    measured = sum(record.finished for record in records)
    if not loads:
        return None
    taken = fmean(load.other_cores + load.stolen_cores for load in loads)
    cores = records[0].environment.cpu_count
    return (
        f"{len(loads)} of {measured} results were measured while other processes took "
        f"{taken:.1f} of {cores} cores on average: their times are not to be trusted, their "
        "bytes are"
    )


def lost_variants(records: Sequence[Record]) -> list[str]:
    """Return the variants without any result whose time limits were met on a busy machine."""
    measured = {record.case.variant for record in records if record.finished}
    disturbed = {
        record.case.variant
        for record in records
        if record.outcome is Outcome.TIMEOUT and record.was_disturbed
    }
    return [
        name
        for name in dict.fromkeys(r.case.variant for r in records)
        if name in disturbed - measured
    ]


def _reasons(records: Sequence[Record]) -> str:
    """Say the ways to have no result, each with its count, the most frequent first."""
    counts = Counter(
        "longer than one that stopped"
        if record.outcome is Outcome.SKIPPED
        else outcome_words(record)
        for record in records
    )
    return ", ".join(f"{count} {words}" for words, count in counts.most_common())
