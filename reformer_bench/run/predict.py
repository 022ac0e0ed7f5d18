"""Predicts cases from their real code on fake tensors; many of them in workers.

Only a process that predicts imports torch: who asks workers for predictions needs none.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from reformer_bench.run import entry
from reformer_bench.run.decide import over_budget_message
from reformer_bench.run.forkserver import ForkServer
from reformer_bench.schema.case import Case
from reformer_bench.schema.devices import CUBLAS_WORKSPACE_BYTES, DeviceProfile
from reformer_bench.schema.record import (
    Environment,
    Memory,
    NotPredicted,
    Outcome,
    Prediction,
    Predictions,
    Record,
)

if TYPE_CHECKING:
    from reformer_bench.measure.fake.devices import DeviceModel

# A worker starts in seconds and predicts about two cases a second.
_CASES_OF_A_WORKER = 8
_MOST_WORKERS = 8


def predict_case(
    case: Case, *, profile: DeviceProfile | None = None, follow_all: bool = False
) -> Prediction:
    """Predict what a case will take on its kind of device, without that device.

    Cases that differ only in name and seed are worked out once a process.

    Args:
        case: What is to be predicted.
        profile: The device of the case's kind that is meant; a common one unless given.
        follow_all: Follow every repetition by itself: slower, with the same result.

    Raises:
        NotPredictableError: The case's code depends on the values of tensors.
    """
    import torch

    from reformer_bench.measure.fake.devices import device_model

    kind = case.device_kind
    plain = case.model_copy(update={"suite": "", "variant": "", "seed": 0, "device": kind})
    device = device_model(
        kind, CUBLAS_WORKSPACE_BYTES if profile is None else profile.workspace_bytes
    )
    return _predicted(plain, device, follow_all, torch.get_num_threads())


@functools.lru_cache(maxsize=4096)
def _predicted(case: Case, device: DeviceModel, follow_all: bool, n_threads: int) -> Prediction:
    # CPU kernels have a buffer for each thread, so their number is part of what is remembered.
    from reformer_bench.measure.fake.recording import record_fake_allocations
    from reformer_bench.measure.profile import record_steps
    from reformer_bench.model.repeats import followed_by
    from reformer_bench.run.workloads import build_fake_workload, prepare

    def follow(key: Hashable, work: Callable[[], None], place: str | None) -> None:
        """Run work that our own models mark as repeated and name by its place."""
        with recording.at(place):
            if follow_all:
                work()
            else:
                recording.once(key, work)

    prepare(case)
    with record_fake_allocations(device) as recording, followed_by(follow):
        record_steps(recording, lambda: build_fake_workload(case))
    return recording.prediction()


def predict_all(
    cases: Sequence[Case],
    profile: str | None = None,
    warm: ForkServer | None = None,
    on_predicted: Callable[[], None] = lambda: None,
) -> Predictions:
    """Predict each case in workers, on a device profile or else on the case's kind of device.

    ``warm`` is a fork server that may be there already and is left running. ``on_predicted`` is
    called when a case is done, in any thread, never by two at once.
    """
    if not cases:
        return {}
    wanted = -(-len(cases) // _CASES_OF_A_WORKER)
    n_workers = min(wanted, os.cpu_count() or 1, _MOST_WORKERS)
    # Dealt out in turn, so that each worker gets long cases and short ones.
    shares = [list(cases[start::n_workers]) for start in range(n_workers)]
    own = [ForkServer(entry.PRELOAD) for _ in shares[0 if warm is None else 1 :]]
    servers = own if warm is None else [warm, *own]
    stopping, calling = threading.Event(), threading.Lock()

    def on_told(_: object) -> None:
        with calling:
            on_predicted()

    def predict_share(
        server: ForkServer, share: list[Case]
    ) -> dict[str, Prediction | NotPredicted]:
        server.start()
        if stopping.is_set():
            server.close()
            return {}
        ended = server.call(entry.predict, share, profile, timeout_s=None, told=on_told)
        if ended.returned:
            found: list[Prediction | NotPredicted] = ended.value
        else:
            problem = f"the predicting worker failed: {ended.error or ended.last_words}"
            found = [NotPredicted(problem)] * len(share)
        return {case.id: result for case, result in zip(share, found, strict=True)}

    with ThreadPoolExecutor(n_workers) as pool:
        try:
            results = list(pool.map(predict_share, servers, shares))
        except BaseException:
            # The pool waits for its threads, and they for their servers.
            stopping.set()
            for server in servers:
                server.close()
            raise
        finally:
            for server in own:
                server.close()
    return {case_id: found for share in results for case_id, found in share.items()}


def predicted_record(
    case: Case,
    predicted: Prediction | NotPredicted,
    environment: Environment,
    budget_bytes: int | None,
) -> Record:
    """Make the record of a case that is only predicted."""
    if isinstance(predicted, NotPredicted):
        return Record.not_measured(case, Outcome.ERROR, predicted.problem, environment)
    outcome, message = Outcome.OK, None
    if budget_bytes is not None and predicted.peak_bytes > budget_bytes:
        outcome = Outcome.OVER_BUDGET
        message = over_budget_message(predicted.peak_bytes, budget_bytes)
    memory = predicted.added_to(Memory(allocator=predicted.memory))
    return Record.not_measured(case, outcome, message, environment, memory=memory)
