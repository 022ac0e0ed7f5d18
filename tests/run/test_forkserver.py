"""The fork server: every way a worker can end is told, and none of them ends the server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reformer_bench.run.forkserver import ForkServer, one_line
from tests.run import tasks


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer(["tests.run.tasks"])
    yield made
    made.close()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_a_call_returns_its_value_and_the_cost_of_the_process(server):
    ended = server.call(tasks.double, 21)
    assert (ended.returned, ended.value, ended.exit_code) == (True, 42, 0)
    assert ended.start_ms is not None
    assert ended.start_ms > 0
    assert ended.stop_ms is not None
    assert ended.stop_ms > 0


def test_every_call_is_a_process_of_its_own(server):
    ids = {server.call(tasks.process_id).value for _ in range(3)}
    assert len(ids) == 3
    assert os.getpid() not in ids


def test_values_larger_than_a_pipe_holds_arrive_whole(server):
    assert server.call(tasks.large, 3_000_000).value == b"x" * 3_000_000


def test_an_exception_is_told_in_one_line(server):
    ended = server.call(tasks.fail)
    assert not ended.returned
    assert ended.error == "ValueError: expected this,"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_is_told_with_the_last_words(server, number):
    ended = server.call(tasks.die, number)
    assert (ended.returned, ended.signal, ended.exit_code) == (False, number, None)
    assert ended.last_words == "last words"


def test_an_exit_code_is_told(server):
    ended = server.call(tasks.leave, 7)
    assert (ended.returned, ended.signal, ended.exit_code) == (False, None, 7)


def test_a_worker_out_of_time_is_killed_and_gone(server, tmp_path):
    marker = tmp_path / "pid"
    ended = server.call(tasks.sleep, str(marker), timeout_s=0.5)
    assert (ended.timed_out, ended.returned) == (True, False)
    assert not alive(int(marker.read_text()))
    assert server.call(tasks.double, 1).value == 2


def test_a_killed_server_is_told_and_replaced():
    server = ForkServer([])
    try:
        server.start()
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        assert server.call(tasks.double, 1).error == "the fork server was killed"
        assert server.call(tasks.double, 1).value == 2
    finally:
        server.close()


def test_an_interrupted_caller_takes_its_worker_down(tmp_path):
    server, marker = ForkServer([]), tmp_path / "pid"
    with pytest.raises(KeyboardInterrupt):
        server.call(tasks.interrupt_caller, str(marker), os.getpid())
    assert gone_within(int(marker.read_text()), 10)
    assert server.call(tasks.double, 1).value == 2
    server.close()


def test_a_killed_caller_takes_server_and_worker_down(tmp_path):
    marker = tmp_path / "pid"
    program = (
        "from reformer_bench.run.forkserver import ForkServer\n"
        "from tests.run import tasks\n"
        f"ForkServer([]).call(tasks.sleep, {str(marker)!r})\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", program])
    while not marker.exists() or not marker.read_text():
        assert caller.poll() is None
        time.sleep(0.01)
    worker = int(marker.read_text())
    caller.kill()
    caller.wait()
    assert gone_within(worker, 10)


def test_a_module_that_cannot_be_preloaded_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="the fork server ended with exit code 1"):
        ForkServer(["no_such_module_anywhere"]).start()
    assert "no_such_module_anywhere" in capfd.readouterr().err


def test_what_a_function_tells_on_its_way_arrives_in_order(server):
    told: list[int] = []
    assert server.call(tasks.count, 3, told=told.append).value == 3
    assert told == [0, 1, 2]
    assert tasks.count(2) == 2, "outside of a worker nobody listens"


@pytest.mark.parametrize("ends", [True, False], ids=["returned", "killed"])
def test_processor_time_is_told_however_a_worker_ends(server, ends):
    ended = server.call(tasks.compute, 0.3 if ends else 600.0, timeout_s=None if ends else 0.6)
    assert ended.returned is ends
    assert ended.cpu_s >= 0.3 if ends else ended.cpu_s > 0.0


def test_settings_are_the_workers_environment():
    server = ForkServer(["tests.run.tasks"], {"REFORMER_BENCH_TEST": "x"})
    try:
        assert server.call(os.getenv, "REFORMER_BENCH_TEST").value == "x"
    finally:
        server.close()


def test_one_line_has_no_second_line():
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_what_warms_a_server_is_there_in_its_workers_and_runs_once(tmp_path):
    server = ForkServer([])
    try:
        for _ in range(2):
            server.warm(os.mkdir, str(tmp_path / "made"))
            server.warm(os.chdir, str(tmp_path / "made"))
        assert server.call(os.getcwd).value == str(tmp_path / "made")
        # What fails says nothing, and leaves the server as it was.
        server.warm(os.chdir, str(tmp_path / "nothing"))
        assert server.call(os.getcwd).value == str(tmp_path / "made")
    finally:
        server.close()
