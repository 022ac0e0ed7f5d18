"""Compares prediction and measurement of a user's own models, length by length, until they are too
long for this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reformer_bench.run import entry
from reformer_bench.run.comparison import Comparison
from reformer_bench.run.forkserver import ForkServer
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.prediction import NotPredicted, Prediction
from reformer_bench.schema.units import format_bytes

FIRST_LENGTH = 64
"""Where doublings begin when no lengths are given."""
_MOST_LENGTH = 2**24
_GROWTH = 4
"""How many times as long the next doubling is expected to take, as of attention."""


@dataclass(frozen=True)
class NotCompared:
    """A length that was not measured, or not to its end."""

    case: Case
    reason: str


Compared = Comparison | NotCompared


def doublings(length: int = FIRST_LENGTH) -> Iterator[int]:
    """Yield a length, twice that, and so on."""
    while length <= _MOST_LENGTH:
        yield length
        length *= 2


def compare_lengths(
    cases: Iterator[Case],
    *,
    n_threads: int,
    memory_bytes: int,
    time_s: float,
    stop_at_limits: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Compared]:
    """Predict each case of a model and run it, each time in a worker of its own.

    Args:
        cases: Of one model, from the shortest on.
        n_threads: Of PyTorch, in every worker.
        memory_bytes: A case whose predicted peak is more is not run.
        time_s: After this time no case is started, and one that runs is ended.
        stop_at_limits: End without a word before the first case that would go over memory or time;
            else such cases are told of, and the next one is looked at.
        clock: Tells the time in seconds.

    Raises:
        InputError: A case can't be predicted.
    """
    threads = str(n_threads)
    # MKL takes no more threads than cores unless told to.
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "MKL_DYNAMIC": "FALSE"}
    server, began, last_s = ForkServer(entry.PRELOAD, settings), clock(), 0.0
    try:
        for case in cases:
            predicted = _predicted(server, case)
            left_s, started = time_s - (clock() - began), clock()
            reason = _refusal(predicted, memory_bytes, left_s, last_s if stop_at_limits else 0.0)
            if reason is not None:
                if stop_at_limits:
                    return
                yield NotCompared(case, reason)
                continue
            found = _measured(server, case, predicted, left_s)
            last_s = clock() - started
            yield found
            if isinstance(found, NotCompared):
                return
    finally:
        server.close()


def _refusal(predicted: Prediction, memory_bytes: int, left_s: float, last_s: float) -> str | None:
    """Say why a case is not to be run; None where it is."""
    if predicted.peak_bytes > memory_bytes:
        peak, most = format_bytes(predicted.peak_bytes), format_bytes(memory_bytes)
        return f"predicted to take {peak}, more than the {most} that may be used here"
    if left_s <= _GROWTH * last_s:
        return "the time was used up"
    return None


def _predicted(server: ForkServer, case: Case) -> Prediction:
    library = entry.library_model(case)
    if library is not None:
        server.warm(entry.import_library, library)
    ended = server.call(entry.predict, [case], None)
    problem = f"the predicting worker failed: {ended.error or ended.last_words}"
    if ended.returned:
        (found,) = ended.value
        if isinstance(found, Prediction):
            return found
        assert isinstance(found, NotPredicted)
        problem = found.problem
    raise InputError(f"{case.variant} at length {case.length:,}: {problem}")


def _measured(server: ForkServer, case: Case, predicted: Prediction, left_s: float) -> Compared:
    ended = server.call(entry.measure_memory, case, timeout_s=left_s)
    if ended.timed_out:
        return NotCompared(case, "the time was used up while it ran")
    if not ended.returned:
        how = f"failed: {ended.error or ended.last_words}"
        if ended.signal is not None:
            how = f"was killed by {ended.signal.name}"
        return NotCompared(case, f"the worker {how}")
    found = ended.value
    if isinstance(found, InputError):
        return NotCompared(case, str(found))
    memory, length_name = found
    return Comparison(case, predicted.memory, memory, length_name)


def confirmed(found: Sequence[Compared], bound: float = 0.0) -> int | None:
    """Return the longest length up to which every one that was measured is predicted within a
    bound, a share of the measured peak; None where the shortest isn't.
    """
    length = None
    for one in sorted(found, key=lambda each: each.case.length):
        if not isinstance(one, Comparison):
            continue
        if one.error > bound:
            break
        length = one.case.length
    return length


def sentence(found: Sequence[Compared], bound: float = 0.0) -> str:
    """Say in one sentence how near the predictions of a model came, and up to which length they
    are confirmed.
    """
    compared = [one for one in found if isinstance(one, Comparison)]
    if not compared:
        return "nothing was measured, so that nothing is confirmed."
    noun = compared[0].length_name
    exact = [one for one in compared if one.error_bytes == 0]
    parts = []
    if exact:
        parts.append(f"equal to the byte at {_listed(exact)} {noun}")
    parts += [f"{_off(one)} {noun}" for one in compared if one.error_bytes]
    length = confirmed(found, bound)
    last = "the prediction is not confirmed"
    if length is not None:
        last = f"the prediction is confirmed up to {length:,}"
    return f"{', '.join(parts)}; {last}."


def _off(one: Comparison) -> str:
    where = "above" if one.error_bytes > 0 else "below"
    return f"{one.error:.2%} {where} what was measured at {one.case.length:,}"


def _listed(found: Sequence[Comparison]) -> str:
    return ", ".join(f"{one.case.length:,}" for one in found)
