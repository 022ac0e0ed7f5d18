"""The exit codes of the command line, besides 0 for success."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended; what means the same to a shell has several names."""

    REGRESSION = 1
    """``check``: a case needs more than its tolerance allows, or no longer fits."""
    CASE_ERROR = 1
    """``run``: a case ended in an error of its own; out of memory, out of time are results."""
    NOT_VERIFIED = 1
    """``max-len --verify``: a sequence that was predicted to fit did not run."""
    TOO_FAR_OFF = 1
    """``validate --max-error``: a prediction is off by more; ``validate --operators``: an operator
    holds something else than its formula says."""
    REFUTED = 1
    """``claims``: a claim of the paper is refuted."""
    INPUT = 2
    """The input was wrong; one line on stderr says what."""
    NOT_COMPARABLE = 3
    """``check``: the environments differ in what decides the figures."""
    NOTHING_MEASURED = 4
    """Everything went as asked, and no case ended with a result, or (``check``) not every one, or
    (``run``) none of a whole variant because the machine was busy with something else."""
    INTERRUPTED = 130
    """Ctrl-C was pressed; what had finished by then is kept."""
