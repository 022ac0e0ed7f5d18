"""Exit codes of the command line, besides 0 for done."""

INPUT = 2
"""The input was wrong; one line on stderr says what."""
NOTHING_MEASURED = 4
"""Everything went as asked, and no case ended with a result."""
INTERRUPTED = 130
"""Ctrl-C; what had ended by then is kept."""
