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
        f"not tried: {stop.case.variant} ended with {stop.outcome.value} at "
        f"{format_tokens(stop.case.length)} tokens (case {stop.case_id})"
    )


def no_time_message(
    predicted_ms: float | None, case_timeout_s: float, left_s: float | None, total_s: float | None
) -> str | None:
    """Say why a case has no time to be started; None when it has.

    ``left_s`` is what remains of the run's ``total_s``; None where the run has no limit.
    """
    if left_s is not None and left_s <= 0:
        return f"not started: the run's {total_s:.0f} s are used up"
    if predicted_ms is None:
        return None
    predicted_s = predicted_ms / 1e3
    if predicted_s > case_timeout_s:
        return (
            f"not started: predicted to take {predicted_s:.0f} s, "
            f"more than the time limit of a case of {case_timeout_s:.0f} s"
        )
    if left_s is not None and predicted_s > left_s:
        return (
            f"not started: predicted to take {predicted_s:.0f} s, with {left_s:.0f} s left of "
            f"the run's {total_s:.0f} s"
        )
    return None
