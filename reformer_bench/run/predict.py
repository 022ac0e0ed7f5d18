"""Predicts cases from their real code on fake tensors; many of them in workers.

Only a process that predicts imports torch: who asks workers for predictions needs none.
"""

from __future__ import annotations

import dataclasses
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
from reformer_bench.schema.prediction import NotPredicted, Prediction, Predictions
from reformer_bench.schema.record import Environment, Memory, Outcome, Record

if TYPE_CHECKING:
    from reformer_bench.measure.fake.devices import DeviceModel
    from reformer_bench.measure.fake.recording import FakeRecording

# A worker starts in seconds and predicts about two cases a second.
_CASES_OF_A_WORKER = 8
_MOST_WORKERS = 8


def predict_case(
    case: Case,
    *,
    profile: DeviceProfile | None = None,
    follow_all: bool = False,
    explain: bool = False,
) -> Prediction:
    """Predict what a case will take on its kind of device, without that device.

    Cases that differ only in name and seed are worked out once a process.

    Args:
        case: What is to be predicted.
        profile: The device of the case's kind that is meant; a common one unless given.
        follow_all: Follow every repetition by itself: slower, with the same result.
        explain: Also say what is alive at the peak, and what made it.

    Raises:
        NotPredictableError: The case's code depends on the values of tensors.
        InputError: A target's own code fails.
    """
    import torch

    from reformer_bench.peers.targets.failures import told_in_one_line

    plain, device = _predictable(case, profile)
    with told_in_one_line(case.target):
        found = _predicted(plain, device, follow_all, explain, torch.get_num_threads())
    return dataclasses.replace(found, notes=(*found.notes, *_notes(case)))


def follow_case(case: Case, *, profile: DeviceProfile | None = None) -> FakeRecording:
    """Return the recording that the explained prediction of a case is taken from; arguments and
    errors are those of ``predict_case``.
    """
    from reformer_bench.peers.targets.failures import told_in_one_line

    plain, device = _predictable(case, profile)
    with told_in_one_line(case.target):
        return _followed(plain, device, follow_all=False, explain=True)


def _predictable(case: Case, profile: DeviceProfile | None) -> tuple[Case, DeviceModel]:
    """Return what of a case decides its prediction, and the device to imitate."""
    from reformer_bench.measure.fake.devices import device_model

    kind = case.device_kind
    plain = case.model_copy(update={"suite": "", "variant": "", "seed": 0, "device": kind})
    device = device_model(
        kind, CUBLAS_WORKSPACE_BYTES if profile is None else profile.workspace_bytes
    )
    return plain, device


def _notes(case: Case) -> list[str]:
    """Say what of a case's own switches is not predicted."""
    notes = []
    if case.train.compile:
        notes.append(
            "torch.compile is not predicted: the figures are those of the module as it is, and "
            "compiled code may keep and allocate otherwise."
        )
    if case.train.autocast != "none" and case.device_kind == "cuda":
        notes.append(
            "torch.autocast is followed by the CPU's list of operators: on CUDA softmax, norms and "
            "losses run in float32 as well, and keep more than is predicted."
        )
    return notes


@functools.lru_cache(maxsize=4096)
def _predicted(
    case: Case, device: DeviceModel, follow_all: bool, explain: bool, n_threads: int
) -> Prediction:
    # CPU kernels have a buffer for each thread, so their number is part of what is remembered.
    return _followed(case, device, follow_all=follow_all, explain=explain).prediction()


def _followed(case: Case, device: DeviceModel, *, follow_all: bool, explain: bool) -> FakeRecording:
    from reformer_bench.measure.fake.outside import clear_caches_of_fake_tensors
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
    try:
        with record_fake_allocations(device, explain=explain) as recording, followed_by(follow):
            record_steps(recording, lambda: build_fake_workload(case))
    finally:
        if case.target is not None:
            clear_caches_of_fake_tensors()
    return recording


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
        for library in filter(None, dict.fromkeys(map(entry.library_model, share))):
            server.warm(entry.import_library, library)
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
