"""Predictions of a run's cases, made in workers before anything is measured."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from reformer_bench.run import entry
from reformer_bench.run.forkserver import ForkServer
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import (
    Environment,
    Memory,
    Outcome,
    Predicted,
    Predictions,
    Record,
)
from reformer_bench.schema.units import format_bytes

# A worker starts in seconds and predicts about two cases a second.
_CASES_OF_A_WORKER = 8
_MOST_WORKERS = 8


def predict_all(
    cases: Sequence[Case],
    profile: str | None = None,
    warm: ForkServer | None = None,
    told: Callable[[], None] = lambda: None,
) -> Predictions:
    """Predict each case, on a device profile or else on the case's kind of device.

    ``warm`` is a fork server that may be there already and is left running. ``told`` is called when
    a case is done, in any thread, never by two at once.
    """
    if not cases:
        return {}
    wanted = -(-len(cases) // _CASES_OF_A_WORKER)
    n_workers = min(wanted, os.cpu_count() or 1, _MOST_WORKERS)
    # Dealt out in turn, so that each worker gets long cases and short ones.
    shares = [list(cases[start::n_workers]) for start in range(n_workers)]
    own = [ForkServer(entry.PRELOAD) for _ in shares[0 if warm is None else 1 :]]
    servers = own if warm is None else [warm, *own]
    stopping, telling = threading.Event(), threading.Lock()

    def tell_alone() -> None:
        with telling:
            told()

    def share(server: ForkServer, of: list[Case]) -> list[Predicted]:
        return _share(server, of, profile, stopping, tell_alone)

    with ThreadPoolExecutor(n_workers) as pool:
        try:
            found = list(pool.map(share, servers, shares))
        except BaseException:
            # The pool waits for its threads, and they for their servers.
            stopping.set()
            for one in servers:
                one.close()
            raise
        finally:
            for one in own:
                one.close()
    results = [result for part in found for result in part]
    ordered = [case for part in shares for case in part]
    return {case.id: result for case, result in zip(ordered, results, strict=True)}


def _share(
    server: ForkServer,
    cases: list[Case],
    profile: str | None,
    stopping: threading.Event,
    told: Callable[[], None],
) -> list[Predicted]:
    """What one worker finds out; nothing once everything is to stop."""
    server.start()
    if stopping.is_set():
        server.close()
        return []
    ended = server.call(entry.predict, cases, profile, timeout_s=None, told=lambda _: told())
    if not ended.returned:
        problem = f"the predicting worker failed: {ended.error or ended.last_words}"
        return [Predicted(problem=problem)] * len(cases)
    found: list[Predicted] = ended.value
    return found


def over_budget_message(peak_bytes: int, budget_bytes: int) -> str:
    """Say why a case isn't started."""
    return (
        f"not started: predicted to take {format_bytes(peak_bytes)}, "
        f"more than the {format_bytes(budget_bytes)} available"
    )


def predicted_record(
    case: Case, predicted: Predicted, environment: Environment, budget_bytes: int | None
) -> Record:
    """Make the record of a case that is only predicted."""
    peak = predicted.peak_bytes
    outcome, message = Outcome.OK, None
    if peak is None:
        outcome, message = Outcome.ERROR, predicted.problem
    elif budget_bytes is not None and peak > budget_bytes:
        outcome, message = Outcome.OVER_BUDGET, over_budget_message(peak, budget_bytes)
    return Record(
        case_id=case.id,
        case=case,
        outcome=outcome,
        message=message,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_ms=0.0,
        memory=predicted.added_to(Memory(allocator=predicted.memory)),
        environment=environment,
    )
