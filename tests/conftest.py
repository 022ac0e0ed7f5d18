"""What every test starts from."""

import os
import signal
import threading

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processors, and threads that spin would take them from each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    # A shell script's background jobs ignore interrupts, and so would all that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_terminal_of_the_caller(monkeypatch):
    """Widths and colours are those a test asks for: pytest-xdist sets COLUMNS in its workers."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
