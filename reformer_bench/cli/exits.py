"""The exit codes of the command line, besides 0 for success."""

REGRESSION = 1
"""``check``: a case needs more than its tolerance allows, or no longer fits."""
CASE_ERROR = 1
"""``run``: a case failed for another reason than memory or time, which are results."""
REFUTED = 1
"""``claims``: a claim of the paper is refuted."""
INPUT = 2
"""The input was wrong; one line on stderr says what."""
NOT_COMPARABLE = 3
"""``check``: the environments differ in what decides the figures."""
NOTHING_MEASURED = 4
"""All went as asked, but no case finished; of ``check``, not every one did."""
INTERRUPTED = 130
"""Ctrl-C was pressed; what had finished by then is kept."""
