"""A worker measures one case inside a process of its own, and makes its record whatever happens."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median

import torch

from reformer_bench.measure import environment, flops
from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.allocator.cuda import record_cuda_allocations
from reformer_bench.measure.clock import StepClock
from reformer_bench.measure.host import HighWaterMark, is_out_of_memory
from reformer_bench.measure.nvml import NvmlSampler, open_nvml
from reformer_bench.measure.profile import Recording, record_build, record_step, without_context
from reformer_bench.measure.timeline import COLD, TRACED, WARM
from reformer_bench.peers.targets.failures import failure_words
from reformer_bench.run import limits
from reformer_bench.run.executor import COUNTED_STEP_MS, Description, WorkOrder, n_warmup_steps
from reformer_bench.run.expand import check_device
from reformer_bench.run.quality import lsh_quality
from reformer_bench.run.workloads import Workload, build_workload, prepare
from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.model import Attention
from reformer_bench.schema.record import (
    Memory,
    Outcome,
    Quality,
    Record,
    StepSample,
    Timing,
    utc_now,
)


def describe_device(name: str) -> Description:
    """Say what ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` is here; InputError if it isn't there."""
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu":
        _check_cuda(name)
    return Description(device=name, environment=environment.collect(torch.device(name)))


def _check_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        raise InputError(
            f"--device: {name} was asked for, but torch {torch.__version__} sees no CUDA device"
        )
    count = torch.cuda.device_count()
    index = torch.device(name).index
    if index is not None and index >= count:
        raise InputError(
            f"--device: {name} was asked for, but the devices are cuda:0 to cuda:{count - 1}"
        )


def matmul_speed(device: str, dtype: str) -> float:
    """Return the FLOP/s of one large matrix product on a device in a dtype."""
    return flops.matmul_flops_per_second(torch.device(device), getattr(torch, dtype))


_MESSAGE_LENGTH = 300


@dataclass
class _Findings:
    """What is known of a case so far; what was reached before a failure stays."""

    memory: Memory = field(default_factory=Memory)
    build_ms: float = 0.0
    cold: StepSample | None = None
    timed: tuple[StepSample, ...] = ()
    n_before: int = 0
    """How many steps ran before the timed ones."""
    flops: int | None = None
    quality: tuple[Quality, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    limit: limits.MemoryLimit | None = None
    over_budget: str | None = None
    """Why what was measured is more than the budget."""


def measure_case(order: WorkOrder, matmul_flops_per_second: float | None) -> Record:
    """Measure one case. Never raises for what the case does: that becomes the outcome."""
    case, started_at, began = order.case, utc_now(), time.monotonic()
    device = torch.device(case.device)
    if device.type == "cuda":
        # By its index the allocator and NVML are asked.
        device = torch.device("cuda", device.index or 0)
    found = _Findings()
    outcome, message = Outcome.OK, None
    try:
        _measure(order, device, found)
    except (Exception, SystemExit) as error:
        limits.lift(found.limit)
        outcome, message = _outcome(error, case, found)
    else:
        if found.over_budget is not None:
            outcome = Outcome.HOST_OOM if case.device_kind == "cpu" else Outcome.DEVICE_OOM
            message = found.over_budget
    return Record(
        case_id=case.id,
        case=case,
        outcome=outcome,
        message=message,
        started_at=started_at,
        wall_ms=(time.monotonic() - began) * 1e3,
        memory=found.memory,
        timing=_timing(order, found, matmul_flops_per_second),
        quality=found.quality,
        settings=found.settings,
        environment=order.environment or environment.collect(device),
    )


def _measure(order: WorkOrder, device: torch.device, found: _Findings) -> None:
    """Run a build, a cold and a warm step under the memory probes, then timed steps without any."""
    case = order.case
    prepare(case)
    sampler = _start_nvml(device, found)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    found.limit = limits.impose(device, order.memory_budget_bytes)
    try:
        recording, workload, last = _recorded_steps(order, device, sampler, found)
    finally:
        if sampler is not None:
            sampler.stop()
            found.memory = found.memory.model_copy(update={"nvml": sampler.result()})
    found.over_budget = limits.exceeded(order.memory_budget_bytes, found.memory.peak_bytes)
    if order.max_samples == 0 or found.over_budget is not None:
        return
    found.n_before = 2
    if last.total_ms <= COUNTED_STEP_MS:
        found.flops = flops.count_flops(lambda: workload.step(without_context))
        found.n_before += 1
    _time_steps(workload, device, order, last, found)
    _trace(recording, workload, device, found)
    if case.workload == "attention" and case.config.kind(0) is Attention.LSH:
        _judge(order, device, found)


def _trace(
    recording: Recording, workload: Workload, device: torch.device, found: _Findings
) -> None:
    """Run one more step on CUDA with every allocation traced, for the breakdown of the peak.

    What goes wrong here takes nothing from what was measured before: it becomes a setting.
    """
    if device.type != "cuda":
        return
    try:
        record_step(recording, workload, TRACED)
    except Exception as error:
        found.settings["breakdown"] = f"not traced: {_shortened(_in_one_line(error))}"
    allocator = recording.allocator_memory()
    found.memory = found.memory.model_copy(update={"allocator": allocator})


def _judge(order: WorkOrder, device: torch.device, found: _Findings) -> None:
    """Measure how near LSH attention comes to full attention; a failure becomes a setting, since
    all else is measured.
    """
    case = order.case
    try:
        found.quality = lsh_quality(case.config, case.length, device, case.seed)
    except Exception as error:
        found.settings["quality"] = f"not measured: {_shortened(_in_one_line(error))}"


def _recorded_steps(
    order: WorkOrder, device: torch.device, sampler: NvmlSampler | None, found: _Findings
) -> tuple[Recording, Workload, StepSample]:
    """Run the probed steps inside a recording; what it has is kept when they fail as well."""
    mark = HighWaterMark()
    mark.start()
    recording: Recording | None = None
    recorder: AbstractContextManager[Recording] = (
        record_cuda_allocations(device) if device.type == "cuda" else record_cpu_allocations()
    )
    try:
        with recorder as recording:
            try:
                return recording, *_probed_steps(order, device, recording, sampler, found)
            finally:
                # Reading the recording, as the block ends, takes memory that isn't the case's.
                found.memory = Memory(host=mark.stop())
                limits.lift(found.limit)
    finally:
        if recording is not None:
            allocator = recording.allocator_memory()
            found.memory = found.memory.model_copy(update={"allocator": allocator})
        limits.restore(found.limit)


def _probed_steps(
    order: WorkOrder,
    device: torch.device,
    recording: Recording,
    sampler: NvmlSampler | None,
    found: _Findings,
) -> tuple[Workload, StepSample]:
    """Run build, cold and warm step; return the workload and the last step's times."""

    def build() -> Workload:
        began = time.perf_counter()
        workload = build_workload(order.case, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.build_ms = (time.perf_counter() - began) * 1e3
        found.settings.update(workload.settings)
        return workload

    def step(number: int) -> StepSample:
        record_step(recording, workload, number, clock.phase)
        times = clock.finish()
        if sampler is not None:
            sampler.sample()
        return times

    clock = StepClock(device)
    workload = record_build(recording, build)
    found.cold = step(COLD)
    return workload, found.cold if order.max_samples == 0 else step(WARM)


def _time_steps(
    workload: Workload, device: torch.device, order: WorkOrder, last: StepSample, found: _Findings
) -> None:
    """Warm up, then time steps until the sampling time is over or there are enough.

    ``last`` is the step before; a slow workload is warmed up no further, since two of its steps
    have run already.
    """
    clock = StepClock(device)
    n_warmup = n_warmup_steps(order.sample_time_s, last.total_ms)
    for _ in range(n_warmup):
        workload.step(clock.phase)
        clock.finish()
    found.n_before += n_warmup
    steps: list[StepSample] = []
    began = time.monotonic()
    while len(steps) < order.max_samples:
        if len(steps) >= order.min_samples and time.monotonic() - began >= order.sample_time_s:
            break
        workload.step(clock.phase)
        steps.append(clock.finish())
    found.timed = tuple(steps)


def _start_nvml(device: torch.device, found: _Findings) -> NvmlSampler | None:
    """Return a running sampler for a CUDA device; why there is none goes into the settings."""
    if device.type != "cuda":
        return None
    sampler, reason = open_nvml(device)
    if sampler is None:
        found.settings["nvml"] = reason or "not available"
        return None
    sampler.start()
    return sampler


def _outcome(error: Exception | SystemExit, case: Case, found: _Findings) -> tuple[Outcome, str]:
    text = _in_one_line(error)
    ran_out = None
    if isinstance(error, Exception):
        ran_out = is_out_of_memory(error, case.device_kind)
    if ran_out is None:
        words = f"{type(error).__name__}: {text}"
        if isinstance(error, InputError):
            # Its text says it all.
            words = text
        elif case.target is not None:
            words = f"{case.target.target}: {failure_words(error)}"
        return Outcome.ERROR, _shortened(words)
    limit = f" (within {found.limit.why})" if found.limit is not None else ""
    # What torch puts before it is the place in its own source.
    text = text.rpartition("err == 0. ")[2]
    return Outcome(ran_out), _shortened(text) + limit


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"


def _timing(order: WorkOrder, found: _Findings, matmul: float | None) -> Timing | None:
    """Return the record's times; None where not even the cold step ended."""
    if found.cold is None:
        return None
    counts_tokens = found.settings.get("length", "tokens") == "tokens"
    step_ms = None
    if found.timed and counts_tokens:
        step_ms = median(step.total_ms for step in found.timed)
    return Timing(
        build_ms=found.build_ms,
        cold=found.cold,
        warm=found.timed,
        n_warmup=found.n_before if found.timed else 0,
        tokens_per_second=None if step_ms is None else order.case.tokens / step_ms * 1e3,
        flops=found.flops,
        matmul_flops_per_second=matmul,
    )
