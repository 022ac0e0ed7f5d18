"""A fork server has the heavy modules imported, so that a worker forked from it starts at once.

multiprocessing's own fork server imports the caller's main module again in every worker, keeps
workers alive when the caller is killed, and tells nothing about how one died; hence this one. It
runs one worker at a time, in a session of its own, so that Ctrl-C reaches only the caller.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, BinaryIO

_KILL_PATIENCE_S = 60.0
_TAIL_BYTES = 4096
_PR_SET_PDEATHSIG = 1

_caller: Connection | None = None
"""The connection to the caller, in a worker; None elsewhere."""


@dataclass(frozen=True)
class Ended:
    """Says how a call ended: with a value, an exception, a signal, an exit code, or out of time."""

    start_ms: float | None
    """The time from asking to the worker's first line; None where it never got there."""
    stop_ms: float | None = None
    """The time from the worker's last line to its process being gone; None where it got no
    further."""
    returned: bool = False
    value: Any = None
    error: str | None = None
    """The exception that the function raised, as one line."""
    timed_out: bool = False
    signal: signal.Signals | None = None
    exit_code: int | None = None
    last_words: str = ""
    """The last line the worker printed."""
    cpu_s: float | None = None
    """The processor time of all threads of the worker, and of the server that forked it; None where
    the worker never got there."""


class ForkServer:
    """Runs functions, one at a time, in fresh processes forked from a warm one.

    ``preload`` names the modules imported beforehand. None of them may start threads that hold
    locks, run parallel regions, or touch CUDA while being imported. ``settings`` are environment
    variables of the server and its workers, on top of the caller's.
    """

    def __init__(self, preload: Sequence[str], settings: Mapping[str, str] | None = None) -> None:
        self._preload = list(preload)
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._warmed: set[bytes] = set()
        """The calls that the server itself has run."""

    def start(self) -> None:
        """Start the server and wait until its modules are imported."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from {__name__} import serve; serve({theirs.fileno()}, {self._preload!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._settings},
            start_new_session=True,
        )
        theirs.close()
        self._control = Connection(ours.detach())
        try:
            self._control.recv()
        except EOFError:
            code = self._process.wait()
            self.close()
            raise RuntimeError(f"the fork server ended with exit code {code}") from None
        except BaseException:
            self.close()
            raise

    def warm(self, function: Callable[..., None], *args: Any) -> None:
        """Have the server itself run ``function(*args)`` once, so that later workers find what it
        imported.

        The rules for ``preload`` hold for it as well. Where it raises nothing is said: a worker
        that needs the same will. An exception here takes the server down.
        """
        work = pickle.dumps((function, args))
        if work in self._warmed:
            return
        self.start()
        assert self._control is not None
        try:
            self._control.send(("warm", work))
            self._control.recv()
        except (EOFError, ConnectionError):
            # Whatever is run next starts another server, or says why it can't.
            self.close()
        except BaseException:
            self.close()
            raise
        else:
            self._warmed.add(work)

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout_s: float | None = None,
        told: Callable[[Any], None] = lambda value: None,
    ) -> Ended:
        """Run ``function(*args)`` in a fresh process and tell how it ended.

        The function and its arguments go by pickle. After ``timeout_s`` the worker is killed.
        ``told`` gets what the function tells on its way, see ``tell``.
        An exception here, KeyboardInterrupt included, takes server and worker down.
        """
        self.start()
        assert self._control is not None
        try:
            return self._call(self._control, pickle.dumps((function, args)), timeout_s, told)
        except (EOFError, ConnectionError):
            self.close()
            return Ended(start_ms=None, error="the fork server was killed")
        except BaseException:
            self.close()
            raise

    def _call(
        self,
        control: Connection,
        work: bytes,
        timeout_s: float | None,
        told: Callable[[Any], None],
    ) -> Ended:
        asked = time.monotonic()
        control.send(("run", work))
        deadline = None if timeout_s is None else asked + timeout_s
        started = finished = None
        outcome: dict[str, Any] = {}
        while True:
            if deadline is not None and not control.poll(max(0.0, deadline - time.monotonic())):
                if outcome.get("timed_out"):
                    raise RuntimeError(f"a killed worker was still there {_KILL_PATIENCE_S} s on")
                control.send(("kill", None))
                outcome["timed_out"] = True
                deadline = time.monotonic() + _KILL_PATIENCE_S
                continue
            kind, content = control.recv()
            if kind == "hello":
                started = content
            elif kind == "result":
                finished, result = pickle.loads(content)
                outcome.update(result)
            elif kind == "told":
                told(content)
            elif kind == "exit":
                status, last_words, cpu_s = content
                break
        return Ended(
            start_ms=None if started is None else (started - asked) * 1e3,
            stop_ms=None if finished is None else (time.monotonic() - finished) * 1e3,
            signal=signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else None,
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            last_words=last_words,
            cpu_s=cpu_s,
            **outcome,
        )

    def close(self) -> None:
        """Kill the server, and the worker where one runs."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            # The server leads its session, and is not waited for yet: the number is still its.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._control = None
        self._warmed.clear()


def serve(descriptor: int, preload: Sequence[str]) -> None:
    """Be the server: import, then fork a worker per request until the caller is gone."""
    control = Connection(descriptor)
    for module in preload:
        importlib.import_module(module)
    # What is here stays: a worker's collector must not touch, and so copy, these pages.
    gc.collect()
    gc.freeze()
    # A caller that went away meanwhile is no error.
    with contextlib.suppress(BrokenPipeError):
        control.send("ready")
    while True:
        try:
            kind, work = control.recv()
        except (EOFError, ConnectionError):
            return
        if kind == "warm":
            with contextlib.suppress(Exception):
                function, args = pickle.loads(work)
                function(*args)
            gc.collect()
            gc.freeze()
            with contextlib.suppress(BrokenPipeError):
                control.send("ready")
        if kind == "run":
            with contextlib.suppress(BrokenPipeError):
                _supervise(control, work)


def _supervise(control: Connection, work: bytes) -> None:
    """Fork one worker, pass on what it says, and report its end."""
    own_s = time.process_time()
    reader, writer = Pipe(duplex=False)
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            reader.close()
            control.close()
            _work(work, writer, output)
        writer.close()
        while True:
            ready = wait([control, reader])
            if control in ready and not _obey(control, pid):
                sys.exit()
            if reader in ready:
                try:
                    message = reader.recv_bytes()
                except EOFError:
                    break
                control.send(pickle.loads(message))
        _, status, usage = os.wait4(pid, 0)
        reader.close()
        cpu_s = usage.ru_utime + usage.ru_stime + time.process_time() - own_s
        control.send(("exit", (status, _last_line(output), cpu_s)))


def _obey(control: Connection, pid: int) -> bool:
    """Carry out an order that came while a worker runs; False when the caller is gone."""
    try:
        order, _ = control.recv()
    except EOFError:
        order = None
    os.kill(pid, signal.SIGKILL)
    return order is not None


def _work(work: bytes, writer: Connection, output: BinaryIO) -> None:
    """Be the worker, for its whole life; never returns."""
    global _caller
    _caller = writer
    writer.send_bytes(pickle.dumps(("hello", time.monotonic())))
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        function, args = pickle.loads(work)
        result = {"returned": True, "value": function(*args)}
    except BaseException as error:
        traceback.print_exc()
        result = {"error": one_line(error)}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    content = pickle.dumps((time.monotonic(), result))
    writer.send_bytes(pickle.dumps(("result", content)))
    # Not sys.exit: nothing of the server's may be torn down or flushed twice.
    os._exit(0)


def tell(value: Any) -> None:
    """Say something to the caller from inside a worker; outside of one, nobody listens."""
    if _caller is not None:
        _caller.send_bytes(pickle.dumps(("told", value)))


def _last_line(output: BinaryIO) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL_BYTES))
    lines = output.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def one_line(error: BaseException) -> str:
    """Write an exception as one line: its kind and the first line of its text."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
