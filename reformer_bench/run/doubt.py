"""Doubt: whether a time limit that a case met tells of the case, or of a disturbed machine."""

from __future__ import annotations

from reformer_bench.run.forecast import Estimate
from reformer_bench.spec.record import Environment, Load, Outcome, Record

# How many times faster than its limit a case must be expected to make the limit doubtful: shorter
# lengths of the same model tell it well, other models only roughly.
_OWN_MARGIN = 2.0
_OTHERS_MARGIN = 8.0


def doubt(record: Record, expected: Estimate | None) -> str | None:
    """Why a time limit is no evidence that the case takes so long, in words; None: it is.

    ``expected`` is what the case was to take by its operations and the speed reached in the run.
    """
    if record.outcome is not Outcome.TIMEOUT or record.wall_ms == 0.0:
        return None
    if record.load is not None and record.was_disturbed:
        return taken_words(record.load, record.environment)
    if expected is None:
        return None
    seconds = max(1.0, expected.ms / 1e3)
    if expected.is_own and expected.ms * _OWN_MARGIN < record.wall_ms:
        return f"by its shorter lengths it takes {seconds:.0f} s"
    if not expected.is_own and expected.ms * _OTHERS_MARGIN < record.wall_ms:
        return f"at the speed of the other models it takes {seconds:.0f} s"
    return None


def hopeless(expected: Estimate | None, roughly: Estimate | None, limit_s: float) -> bool:
    """Whether a case is not going to end within a limit, as far as can be known.

    Lengths that were all measured under a disturbance don't tell by themselves: the speed of other
    models, ``roughly``, must not say that the case takes far less.
    """
    if expected is None or not expected.is_own or expected.ms / 1e3 <= limit_s:
        return False
    if not expected.disturbed or roughly is None:
        return True
    return roughly.ms * _OTHERS_MARGIN >= limit_s * 1e3


def taken_words(load: Load, environment: Environment) -> str:
    """What others took meanwhile."""
    taken = load.other_cores + load.stolen_cores
    cores = "1 core" if environment.cpu_count == 1 else f"{environment.cpu_count} cores"
    return f"meanwhile other processes took {taken:.1f} of {cores}"
