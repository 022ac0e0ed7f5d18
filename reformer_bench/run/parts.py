"""Parts are the suites that one run measures, one after another, each by its own limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reformer_bench.run.executor import Executor
from reformer_bench.run.expand import device_kind, expand, expand_parts
from reformer_bench.run.session import Notify, Progress, Session
from reformer_bench.spec.predicted import Predictions
from reformer_bench.spec.record import Record, latest_of_each
from reformer_bench.spec.suite import Suite
from reformer_bench.store import RunInfo, RunWriter


def measure_parts(
    parts: Sequence[Suite],
    executor: Executor,
    writer: RunWriter,
    info: RunInfo,
    *,
    records: list[Record],
    reopened: Sequence[Record] = (),
    predictions: Predictions,
    spent_s: float,
    notify: Notify,
) -> None:
    """Measure every part; each record is added to ``records`` the moment it is written.

    ``records`` holds those of an earlier run of the folder already, but not those that are
    ``reopened``, whose cases are run again. ``spent_s`` was taken before anything was measured, and
    counts against the limits of a run of a single suite; where there are several, no one of them is
    charged with what was done for all.
    """
    kind = device_kind(info.device)
    known = {record.case_id for record in records}
    total = len(known | {case.id for case in expand_parts(parts, info.device)})

    for number, part in enumerate(parts):
        after_s = sum(_expected_s(later, info.device) for later in parts[number + 1 :])

        def tell(progress: Progress, after_s: float = after_s) -> None:
            records[:] = latest_of_each([*records, *progress.records])
            left_s = None if progress.left_s is None else progress.left_s + after_s
            notify(replace(progress, total=total, left_s=left_s))

        session = Session(
            executor,
            writer,
            expand(part, info.device),
            part.on(kind),
            info.environment,
            memory_budget_bytes=info.memory_budget_bytes,
            predictions=predictions,
            spent_s=spent_s if len(parts) == 1 else 0.0,
            earlier=tuple(records),
            reopened=reopened,
            notify=tell,
        )
        session.run()


def _expected_s(part: Suite, device: str) -> float:
    """Return how long a suite says it takes on a kind of device; 0 where it doesn't say."""
    return 60 * part.expected_minutes.get(device_kind(device), 0.0)
