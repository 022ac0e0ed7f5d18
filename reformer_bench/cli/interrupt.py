"""Interrupts: Ctrl-C and SIGTERM end a command the same way, wherever they meet it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Longer than closing files and ending workers takes.
_PATIENCE_S = 2.0


@contextmanager
def ended_by_signals(patience_s: float = _PATIENCE_S) -> Iterator[Callable[[], bool]]:
    """KeyboardInterrupt on SIGTERM as on SIGINT, for as long as the block runs.

    Yields a function that tells whether one has come. An interrupt may meet code whose exceptions
    go nowhere (an import that is let fail, a destructor, a callback of torch's): while the block
    doesn't end, it is raised again. Signals that the caller has the process ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    timers: list[threading.Timer] = []

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(patience_s, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    sys.unraisablehook = _silent_about_interrupts(hook)
    try:
        yield lambda: bool(timers)
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _silent_about_interrupts(otherwise: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for exceptions that go nowhere: an interrupt is raised again, and needs no words."""

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            otherwise(unraisable)

    return hook
