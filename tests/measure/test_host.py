"""The host: the resident set's mark, the budget, what an OOM is, load, and the control group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reformer_bench.measure import host
from reformer_bench.measure.host import (
    Glance,
    HighWaterMark,
    Reading,
    is_out_of_memory,
    load_between,
    read,
    resident_bytes,
)
from reformer_bench.schema.record import Load
from reformer_bench.schema.units import MIB
from tests.builders import environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def touch(n_mib: int) -> torch.Tensor:
    return torch.ones(n_mib * MIB, dtype=torch.uint8)


@linux
def test_the_mark_sees_memory_that_is_gone_again() -> None:
    mark = HighWaterMark()
    mark.start()
    touch(200)
    memory = mark.stop()
    assert mark.source == "vmhwm"
    assert 190 * MIB < memory.peak_bytes - memory.before_bytes < 300 * MIB


@linux
def test_the_mark_forgets_what_was_before_it() -> None:
    touch(200)
    mark = HighWaterMark()
    mark.start()
    memory = mark.stop()
    assert memory.peak_bytes - memory.before_bytes < 100 * MIB


def test_without_a_mark_to_reset_a_thread_samples_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    mark = HighWaterMark()
    mark.start()
    held = touch(300)
    memory = mark.stop()
    assert mark.source == "sampled"
    assert memory.peak_bytes - memory.before_bytes > 250 * MIB
    del held


OVER_BUDGET = """
import torch
from reformer_bench.measure.host import (
    is_out_of_memory, lift_data_segment_limit, limit_data_segment,
)
from reformer_bench.schema.units import MIB

torch.ones(2**20).add_(1)
limit_data_segment(256 * MIB)
fits = torch.ones(128 * MIB, dtype=torch.uint8)
try:
    torch.ones(512 * MIB, dtype=torch.uint8)
except RuntimeError as error:
    print(type(error).__name__, is_out_of_memory(error, "cpu"))
lift_data_segment_limit()
torch.ones(512 * MIB, dtype=torch.uint8)
print("alive", int(fits.sum()) // MIB)
"""


@pytest.mark.slow
@linux
def test_an_allocation_over_budget_fails_cleanly_and_one_within_it_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OVER_BUDGET], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n") == ["RuntimeError host-oom", "alive 128", ""], done.stderr


def test_a_negative_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 bytes or more, got -1"):
        host.limit_data_segment(-1)


def raised_from(cause: Exception) -> Exception:
    error = RuntimeError("the step failed")
    error.__cause__ = cause
    return error


CPU_TEXT = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 536870912 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "on_cpu", "on_cuda"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "host-oom", "device-oom"),
        (RuntimeError("CUDA error: out of memory"), "host-oom", "device-oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "host-oom", "device-oom"),
        (RuntimeError(CPU_TEXT), "host-oom", "host-oom"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
            "host-oom",
            "host-oom",
        ),
        (RuntimeError("std::bad_alloc"), "host-oom", "host-oom"),
        (OSError(12, "Cannot allocate memory"), "host-oom", "host-oom"),
        (MemoryError(), "host-oom", "host-oom"),
        (raised_from(MemoryError()), "host-oom", "host-oom"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None, None),
        (RuntimeError("CUDA error: device-side assert triggered"), None, None),
        (ValueError("out of memory of mine"), None, None),
        (KeyError("CUDA out of memory"), None, None),
    ],
)
def test_an_oom_is_told_from_other_errors(
    error: Exception, on_cpu: str | None, on_cuda: str | None
) -> None:
    assert is_out_of_memory(error, "cpu") == on_cpu
    assert is_out_of_memory(error, "cuda") == on_cuda


def test_the_real_message_of_torchs_cpu_allocator_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value, "cpu") == "host-oom"


def test_the_resident_set_grows_with_what_is_touched() -> None:
    before = resident_bytes()
    held = touch(100)
    assert resident_bytes() - before > 90 * MIB
    del held


def test_only_processors_that_may_be_used_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_usable_processors", lambda: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 100 10 20 5000 70 3 4 50 0 0\n"
        "cpu1 999 999 999 0 0 0 0 999 0 0\n"
        "cpu2 200 0 0 5000 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    found = read(stat)
    assert (found.busy_s, found.stolen_s) == (3.37, 0.5)


@pytest.mark.parametrize("text", [None, "intr 1 2 3\n"], ids=["no file", "no processor"])
def test_where_the_system_does_not_tell_nothing_is_known(tmp_path, text):
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    assert read(stat) is None
    assert load_between(None, Reading(1.0, 0.0, 0.0), 0.0) is None


def test_our_own_time_is_not_that_of_others():
    before, after = Reading(10.0, 100.0, 5.0), Reading(20.0, 115.0, 6.0)
    load = load_between(before, after, own_s=12.0)
    assert load == Load(own_cores=1.2, other_cores=0.3, stolen_cores=0.1)
    assert load_between(before, after, own_s=16.0).other_cores == 0.0


@pytest.mark.parametrize(
    ("threads", "kind", "others", "disturbs"),
    [
        (2, "cpu", 0.24, False),
        (2, "cpu", 0.26, True),
        (1, "cpu", 1.2, False),
        (1, "cpu", 1.3, True),
        (2, "cuda", 1.2, False),
    ],
)
def test_a_load_disturbs_where_it_takes_what_a_case_computes_on(threads, kind, others, disturbs):
    here = environment(cpu_count=2, torch_threads=threads, device_kind=kind)
    assert Load(own_cores=1.0, other_cores=others).disturbs(here) is disturbs


@pytest.mark.parametrize(
    ("load", "busiest", "words"),
    [
        (
            Load(own_cores=0, other_cores=1.0),
            (("python", 42, 1.0),),
            "another process (python, 42) takes 1.0 of 2 cores",
        ),
        (
            Load(own_cores=0, other_cores=1.5),
            (("cc1", 7, 0.9), ("ld", 8, 0.6)),
            "another process (cc1, 7) takes 0.9 of 2 cores, and others 0.6",
        ),
        (Load(own_cores=0, other_cores=1.0), (), "other processes take 1.0 of 2 cores"),
        (
            Load(own_cores=0, other_cores=0.1, stolen_cores=0.9),
            (),
            "this machine's host gives 1.0 of its 2 cores to others",
        ),
    ],
    ids=["one", "two", "unseen", "stolen"],
)
def test_the_words_say_who_takes_how_much(load, busiest, words):
    assert Glance(load, busiest).words(2) == words


def test_a_glance_at_this_machine_adds_up():
    found = host.look(0.1)
    if found is None:
        pytest.skip("the system doesn't tell")
    n_processors = len(os.sched_getaffinity(0))
    assert 0.0 <= found.load.other_cores <= n_processors + 1
    assert all(number != os.getpid() for _, number, _ in found.busiest)


@pytest.fixture
def tree(tmp_path):
    def make(proc: str, files: dict[str, str]):
        (tmp_path / "cgroup").write_text(proc)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "cgroup", tmp_path / "mount"

    return make


def test_version_2_in_its_own_folder(tree):
    where = tree(
        "0::/user/a\n",
        {
            "user/a/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
            "user/a/memory.max": "1000\n",
            "user/a/memory.current": "400\n",
        },
    )
    assert host.oom_kills(*where) == 2
    assert host.available_bytes(*where) == 600


def test_version_2_in_a_container_whose_path_is_the_hosts(tree):
    where = tree("0::/kubepods/pod1\n", {"memory.events": "oom_kill 7\n", "memory.max": "max\n"})
    assert host.oom_kills(*where) == 7
    assert host.available_bytes(*where) is None


def test_version_1(tree):
    where = tree(
        "9:cpu:/a\n4:memory:/a/b\n0::/\n",
        {
            "memory/a/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/a/b/memory.usage_in_bytes": "400\n",
        },
    )
    assert host.oom_kills(*where) == 1
    assert host.available_bytes(*where) is None, "this limit means none"


def test_without_groups_nothing_is_known(tmp_path):
    assert host.oom_kills(tmp_path / "none", tmp_path) is None
    assert host.available_bytes(tmp_path / "none", tmp_path) is None
