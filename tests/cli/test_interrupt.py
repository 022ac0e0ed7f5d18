"""Interrupts: one line and exit code 130, whatever the command is at, and no process is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from reformer_bench.cli.main import ended_by_signals, main

ROOT = Path(__file__).parent.parent.parent
LONG = {
    "predict": ("predict", "--preset", "all", "--seq-len", "1K..1M"),
    "max-len": ("max-len", "--preset", "all", "--memory-budget", "4GiB"),
    "run": ("run", "--suite", "seq-scaling", "--device", "cpu", "--out", "out"),
    "validate": ("validate", "--count", "500"),
    "recommend": ("recommend", "--seq-len", "64K", "--memory-budget", "16GiB"),
}
QUICK = (("predict", "ctrl-c"), ("run", "terminate"))
"""What the default run tries: a command of one process, and one that has workers."""


def has_torch(pid: int) -> bool:
    """Whether a process or one below it has loaded torch, so that it is at work."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return any("libtorch" in Path(f"/proc/{one.pid}/maps").read_text() for one in tree)
    except (OSError, psutil.NoSuchProcess):
        return False


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(
            name,
            number,
            id=f"{name}-{word}",
            marks=() if (name, word) in QUICK else pytest.mark.slow,
        )
        for name in LONG
        for word, number in (("ctrl-c", signal.SIGINT), ("terminate", signal.SIGTERM))
    ],
)
def test_a_command_that_predicts_ends_in_one_line(name, number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "reformer_bench", *LONG[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not has_torch(process.pid):
            assert process.poll() is None
            time.sleep(0.05)
        helpers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    progress = ("predicting", "finding", "Warning: ")
    lines = [line for line in errors.splitlines() if not line.startswith(progress)]
    assert lines == ["Interrupted."]
    assert "Traceback" not in out
    _, alive = psutil.wait_procs(helpers, timeout=10)
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


def test_an_interrupt_that_goes_nowhere_comes_again():
    def swallow_the_first() -> None:
        with ended_by_signals(0.05) as came:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            assert came()
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        swallow_the_first()


def test_what_an_interrupt_turned_into_is_still_an_interrupt(capsys, monkeypatch):
    def broken_import() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    monkeypatch.setattr("reformer_bench.schema.suite.shipped_suites", broken_import)
    with pytest.raises(SystemExit) as caught:
        main(["suites"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_by_signals() as came:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert not came()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_have_no_signals_to_handle():
    seen = []

    def inside() -> None:
        with ended_by_signals() as came:
            seen.append(came())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False]
