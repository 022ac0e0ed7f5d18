"""Rules for which cases of a run are not worth starting, and the words that say why."""

from __future__ import annotations

from collections.abc import Iterable

from reformer_bench.spec.case import Case
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import format_tokens

STOPPING = frozenset(
    {
        Outcome.DEVICE_OOM,
        Outcome.HOST_OOM,
        Outcome.OVER_BUDGET,
        Outcome.TIMEOUT,
        # A signal that nobody owns up to is most often the kernel short of memory.
        Outcome.KILLED,
    }
)
"""The outcomes after which longer cases of the same series are not tried."""

_ENDS = {
    Outcome.DEVICE_OOM: "ran out of memory",
    Outcome.HOST_OOM: "ran out of memory",
    Outcome.OVER_BUDGET: "would not fit",
    Outcome.TIMEOUT: "met its time limit",
    Outcome.KILLED: "was killed",
}


def stopped_by(case: Case, records: Iterable[Record]) -> Record | None:
    """Return the record of the shortest case of the same series that ran out before this length."""
    return min(
        (
            record
            for record in records
            if record.outcome in STOPPING
            and record.case.series == case.series
            and record.case.length < case.length
        ),
        key=lambda record: record.case.length,
        default=None,
    )


def skip_message(stop: Record) -> str:
    """Say why a longer case was not tried."""
    return (
        f"not tried: {stop.case.variant} {_ENDS[stop.outcome]} at "
        f"{format_tokens(stop.case.length)} tokens (case {stop.case_id})"
    )


def used_up_message(total_s: float | None) -> str:
    """Why no more case is started once the run's time is over."""
    return f"not started: the run's {total_s:.0f} s are used up"


def too_slow_message(predicted_ms: float, case_timeout_s: float) -> str:
    """Why a case is not started that would meet its time limit."""
    return (
        f"not started: predicted to take {predicted_ms / 1e3:.0f} s, "
        f"more than the time limit of a case of {case_timeout_s:.0f} s"
    )


def too_late_message(predicted_ms: float, left_s: float, total_s: float | None) -> str:
    """Why a case is not started that would not end within the run's time."""
    return (
        f"not started: predicted to take {predicted_ms / 1e3:.0f} s, with {left_s:.0f} s left of "
        f"the run's {total_s:.0f} s"
    )
