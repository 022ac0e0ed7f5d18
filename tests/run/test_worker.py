"""The worker: one real case in a process of its own, and what its record holds."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.schema.record import Outcome, Record, json_schema
from tests.builders import TINY, case, order


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    # Two threads on a busy machine wait for each other most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made = LocalExecutor()
        made.describe("cpu")
    yield made
    made.close()


def measure(executor: LocalExecutor, of, **changes) -> Record:
    (record,) = executor.run([order(of, **changes)])
    jsonschema.validate(json.loads(record.model_dump_json()), json_schema())
    return record


def test_the_device_is_described(executor):
    description = executor.describe("cpu")
    assert description.device == "cpu"
    assert description.environment.device_kind == "cpu"


def test_a_train_step_is_measured_whole(executor):
    record = measure(executor, case(length=200), max_samples=2)
    assert record.outcome is Outcome.OK, record.message
    memory, timing = record.memory, record.timing
    assert memory.allocator is not None
    assert [p.phase for p in memory.allocator.cold] == ["build", "forward", "backward", "optimizer"]
    assert [p.phase for p in memory.allocator.warm] == ["forward", "backward", "optimizer"]
    assert memory.allocator.breakdown is not None
    highest = max(part.allocated_bytes for part in memory.allocator.warm)
    assert memory.allocator.breakdown.total_bytes == highest
    assert memory.host is not None
    assert memory.host.peak_bytes >= memory.host.before_bytes > 0
    assert timing is not None
    assert 1 <= len(timing.warm) <= 2
    assert timing.n_warmup >= 3
    assert timing.tokens_per_second is not None
    assert timing.flops is not None
    assert timing.flops > 0
    assert timing.matmul_flops_per_second is not None
    assert record.settings.keys() >= {"lsh_kernel"}
    assert record.overhead is not None


@pytest.mark.slow
def test_parameters_gradients_and_adams_state_are_told_apart(executor):
    breakdown = measure(executor, case("transformer", length=64)).memory.allocator.breakdown
    parameters = breakdown.parameters_bytes
    assert parameters > 0
    assert 0 < breakdown.gradients_bytes <= parameters
    # Two moments of each parameter, and the counts of steps.
    assert 2 * parameters <= breakdown.optimizer_bytes < 2.2 * parameters


@pytest.mark.slow
def test_without_samples_only_the_cold_step_is_run(executor):
    record = measure(executor, case(length=64), min_samples=0, max_samples=0)
    assert record.outcome is Outcome.OK, record.message
    assert record.timing.cold.total_ms > 0
    assert record.timing.warm == ()
    assert record.timing.tokens_per_second is None
    assert record.memory.allocator.warm == ()
    assert record.memory.allocator.breakdown is not None


@pytest.mark.parametrize("workload", ["forward", "attention"])
def test_the_other_workloads(executor, workload):
    record = measure(executor, case(length=64, workload=workload, optimizer="none"))
    assert record.outcome is Outcome.OK, record.message
    assert record.timing.cold.optimizer_ms is None
    assert (record.timing.cold.backward_ms is None) == (workload == "forward")


def test_beyond_its_budget_a_case_is_out_of_memory_and_the_next_runs(executor):
    wide = {**TINY, "n_heads": 8, "max_length": 4096}
    # Scores alone are 8 · 2048² · 4 bytes.
    over = case("transformer", length=2048, model=wide)
    record = measure(executor, over, memory_budget_bytes=64 * 2**20)
    assert record.outcome is Outcome.HOST_OOM
    assert "can't allocate memory" in record.message
    assert "within the memory budget of 64 MiB" in record.message
    assert "\n" not in record.message
    assert record.memory.host is not None
    assert [p.phase for p in record.memory.allocator.cold][:2] == ["build", "forward"]
    assert measure(executor, case(length=64)).outcome is Outcome.OK


@pytest.mark.slow
def test_a_budget_is_held_to_the_byte(executor):
    """It is meant for the allocator; what a process needs besides doesn't count."""
    small = case(length=256)
    peak = measure(executor, small).memory.peak_bytes
    assert measure(executor, small, memory_budget_bytes=peak).outcome is Outcome.OK
    record = measure(executor, small, memory_budget_bytes=peak - 1)
    assert record.outcome is Outcome.HOST_OOM
    assert record.message.startswith("allocated ")
    assert ", more than the memory budget of " in record.message
    assert record.memory.peak_bytes == peak


def test_any_other_exception_is_an_error_in_one_line(executor):
    record = measure(executor, case(implementation="transformers", workload="attention"))
    assert record.outcome is Outcome.ERROR
    assert record.message.startswith("ValueError: workload = 'attention' needs")
    assert "\n" not in record.message


@pytest.mark.slow
def test_a_slow_case_takes_no_more_samples_than_it_must(executor):
    record = measure(executor, case(length=64), sample_time_s=1e-6, min_samples=2, max_samples=9)
    assert len(record.timing.warm) == 2
    assert record.timing.n_warmup == 3, "cold, warm, and the one whose operations were counted"


@pytest.mark.gpu
def test_the_server_that_workers_are_forked_from_has_not_touched_cuda(executor):
    executor.describe("cuda")
    descriptors = Path(f"/proc/{executor.server._process.pid}/fd")
    assert not [fd for fd in descriptors.iterdir() if "nvidia-uvm" in str(fd.readlink())]


@pytest.mark.gpu
def test_a_train_step_on_cuda(executor):
    record = measure(executor, case(length=512, device="cuda"), environment=None)
    assert record.outcome is Outcome.OK, record.message
    assert record.environment.device_kind == "cuda"
    assert record.memory.allocator.source == "cuda-allocator"
    assert record.memory.allocator.peak_reserved_bytes >= record.memory.peak_bytes
    assert record.memory.allocator.breakdown is not None


@pytest.mark.gpu
def test_what_nvml_sees_is_at_least_what_the_allocator_reserved(executor):
    record = measure(executor, case(length=512, device="cuda"))
    if record.memory.nvml is None:
        assert record.settings["nvml"]
        pytest.skip(record.settings["nvml"])
    nvml = record.memory.nvml
    assert nvml.process_peak_bytes >= record.memory.allocator.peak_reserved_bytes


@pytest.mark.gpu
def test_beyond_its_budget_a_cuda_case_is_out_of_device_memory(executor):
    over = case("transformer", length=2048, device="cuda", model={**TINY, "n_heads": 8})
    record = measure(executor, over, memory_budget_bytes=64 * 2**20)
    assert record.outcome is Outcome.DEVICE_OOM
