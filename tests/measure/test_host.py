"""The resident set's mark, the budget that makes an allocation fail cleanly, and what an OOM is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reformer_bench.measure import host as process
from reformer_bench.measure.host import HighWaterMark, is_out_of_memory, resident_bytes
from reformer_bench.schema.units import MIB

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
    monkeypatch.setattr(process, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
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


@linux
def test_an_allocation_over_budget_fails_cleanly_and_one_within_it_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OVER_BUDGET], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n") == ["RuntimeError host-oom", "alive 128", ""], done.stderr


def test_a_negative_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 bytes or more, got -1"):
        process.limit_data_segment(-1)


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
