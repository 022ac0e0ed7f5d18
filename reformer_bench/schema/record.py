"""A record is a case, its outcome and everything measured, as one line of a result file.

Memory is in bytes, time in milliseconds. What was not measured is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from statistics import median
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from reformer_bench.schema.case import Case, DeviceKind
from reformer_bench.schema.explanation import Explanation
from reformer_bench.schema.phases import PHASES as PHASES
from reformer_bench.schema.phases import Phase as Phase

SCHEMA_VERSION: Final = 1
PREDICTED_SOURCE: Final = "fake-tensor"
"""What ``AllocatorMemory.source`` is where nothing was run."""

# With two threads on two cores, less than this slows a step by an eighth at most.
_DISTURBING_CORES = 0.25


class Outcome(StrEnum):
    """How a case ended."""

    OK = "ok"
    DEVICE_OOM = "device-oom"
    HOST_OOM = "host-oom"
    OVER_BUDGET = "over-budget"
    TIMEOUT = "timeout"
    KILLED = "killed"
    ERROR = "error"
    SKIPPED = "skipped"
    """It was not tried, because a shorter length of the same series already ran out."""

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the case was run and memory ran out."""
        return self in (Outcome.DEVICE_OOM, Outcome.HOST_OOM)

    @property
    def is_too_large(self) -> bool:
        """Whether memory ran out, or was predicted to."""
        return self.is_out_of_memory or self is Outcome.OVER_BUDGET

    @property
    def is_limit(self) -> bool:
        """Whether a limit of memory or time ended the case, which longer cases would meet as well.

        A signal that nobody owns up to counts: most often it is the kernel short of memory.
        """
        return self.is_too_large or self in (Outcome.TIMEOUT, Outcome.KILLED)

    @property
    def is_stop(self) -> bool:
        """Whether the case was tried or predicted, and did not finish."""
        return self not in (Outcome.OK, Outcome.SKIPPED)


class _Frozen(BaseModel):
    """What every part of a record is: unchangeable, without keys of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Breakdown(_Frozen):
    """What the bytes alive at the allocated peak are; the five add up to the peak."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """What a forward phase made that is still alive when it ends, kept for the backward pass."""
    temporaries_bytes: int
    """Everything else, which is alive only inside the phase that made it."""

    @property
    def fixed_bytes(self) -> int:
        """The parameters, their gradients and the optimizer's state: what no length changes."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The peak, which is their sum."""
        return self.fixed_bytes + self.activations_bytes + self.temporaries_bytes


class PhasePeak(_Frozen):
    """The peaks of the framework's allocator while one phase ran, counting what was alive before
    it.
    """

    phase: Phase
    allocated_bytes: int
    reserved_bytes: int | None = None
    """What the caching allocator held from the device; None where nothing is cached (CPU)."""


class AllocatorMemory(_Frozen):
    """What the framework's allocator saw, from an empty process on."""

    source: Literal["cuda-allocator", "cpu-allocator-events", "fake-tensor"]
    cold: tuple[PhasePeak, ...]
    """The phases of the first step, and the build before it."""
    warm: tuple[PhasePeak, ...] = ()
    """The phases of a later step, in which gradients and optimizer state already have their
    places."""
    breakdown: Breakdown | None = None
    """What the allocated peak of the warm step is made of (of the cold one, where there is no
    other)."""
    breakdown_phase: Phase | None = None

    @property
    def peak_allocated_bytes(self) -> int:
        """The highest allocated peak of any phase."""
        return max(part.allocated_bytes for part in self.cold + self.warm)

    @property
    def peak_reserved_bytes(self) -> int | None:
        """The highest reserved peak of any phase."""
        reserved = [p.reserved_bytes for p in self.cold + self.warm if p.reserved_bytes is not None]
        return max(reserved, default=None)


class NvmlMemory(_Frozen):
    """What the NVIDIA driver reports; see ``notes`` for what it could not see."""

    device_before_bytes: int
    device_peak_bytes: int
    process_peak_bytes: int | None = None
    process_source: Literal["process", "device-delta"]
    """``device-delta`` where NVML can't see this process (as in a container), so that the growth of
    the device's memory is recorded instead."""
    energy_mj: int | None = None
    mean_power_mw: int | None = None
    n_samples: int
    notes: tuple[str, ...] = ()


class HostMemory(_Frozen):
    """The process's resident set: its memory by the operating system."""

    before_bytes: int
    """What it was after imports, before the case."""
    peak_bytes: int
    """Its high-water mark while the case ran."""

    @property
    def grown_bytes(self) -> int:
        """What the case itself added: what was imported before depends on the cases beside it."""
        return max(0, self.peak_bytes - self.before_bytes)


class Memory(_Frozen):
    """Every peak, each under the name of what measured it."""

    allocator: AllocatorMemory | None = None
    nvml: NvmlMemory | None = None
    host: HostMemory | None = None
    predicted_peak_bytes: int | None = None
    """The allocator's peak, as predicted by a run on fake tensors."""
    predicted_places: dict[str, dict[str, int]] | None = None
    """What is alive at the predicted peak, in bytes, by part of the model and then by kind of
    memory."""
    predicted_notes: tuple[str, ...] = ()
    """What the prediction took for granted, or left out, a sentence each."""
    predicted_explanation: Explanation | None = None
    """What fills the predicted peak, the largest first; None where the prediction was not
    explained."""

    @property
    def peak_bytes(self) -> int | None:
        """The allocator's peak, which is the figure that tables and plots show."""
        return None if self.allocator is None else self.allocator.peak_allocated_bytes


class StepSample(_Frozen):
    """The time of one step, by phase; phases that a workload lacks are None."""

    total_ms: float
    forward_ms: float | None = None
    backward_ms: float | None = None
    optimizer_ms: float | None = None


class Timing(_Frozen):
    """Every timed step, with its phases."""

    build_ms: float
    cold: StepSample
    """The first step of the process; on the CPU it runs under the memory profiler."""
    warm: tuple[StepSample, ...]
    """The steps after warm-up, in order."""
    n_warmup: int
    tokens_per_second: float | None = None
    """The tokens of a step, divided by the median time of a warm step."""
    flops: int | None = None
    """The FLOPs of one step's matrix products, counted by torch.utils.flop_counter."""
    matmul_flops_per_second: float | None = None
    """The speed that one large matrix product reached on this device, in the model's dtype."""


class Quality(_Frozen):
    """How near LSH attention comes to full attention on the same vectors, one head at a time."""

    inputs: Literal["planted", "random"]
    """``planted`` where each query has a few close neighbours that hold nearly all of its
    attention; ``random`` where none has, and attention spreads over everything."""
    relative_error: float
    """‖LSH output − full output‖ / ‖full output‖ over the queries looked at."""
    mass_caught: float
    """The mean share of a query's full attention that lies on keys it sees in any round."""
    n_queries: int


class Overhead(_Frozen):
    """The time that this package itself took to start and stop the case."""

    start_ms: float
    """From asking for a worker to the worker's first line."""
    stop_ms: float
    """From the worker's last line to its process being gone, just before its record is written."""


class Load(_Frozen):
    """What took the processors while a case ran, in cores: 1.0 is one of them all the time."""

    own_cores: float
    """The case itself."""
    other_cores: float
    """Every other process of the machine."""
    stolen_cores: float = 0.0
    """What the host of a virtual machine gave to others."""

    def missing_cores(self, environment: Environment) -> float:
        """Return how many of the cores that a case computes on were taken by others."""
        wanted = environment.torch_threads if environment.device_kind == "cpu" else 1
        spare = max(0, environment.cpu_count - wanted)
        return max(0.0, self.other_cores + self.stolen_cores - spare)

    def disturbs(self, environment: Environment) -> bool:
        """Say whether times taken meanwhile are not to be trusted."""
        return self.missing_cores(environment) >= _DISTURBING_CORES


class Environment(_Frozen):
    """Where a run was made; it is found out once a run and repeated on every record."""

    device_kind: DeviceKind
    device_name: str
    device_memory_bytes: int | None
    driver_version: str | None = None
    cuda_version: str | None = None
    cpu_model: str
    cpu_count: int
    torch_threads: int
    instruction_set: str = ""
    """The processor instructions that PyTorch and oneDNN use; empty in older records."""
    host_memory_bytes: int
    os: str
    python_version: str
    torch_version: str
    torch_build: str
    """``cpu``, or the CUDA version that torch was built for."""
    package_version: str
    allocator_settings: str
    """PYTORCH_ALLOC_CONF on CUDA, the C library's settings on the CPU; empty when unset."""
    commit: str | None = None
    hostname_hash: str
    """Tells two machines apart without naming them."""
    packages: dict[str, str] = Field(default_factory=dict)


class Record(_Frozen):
    """A case, its outcome and everything measured: one line of a result file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    case_id: str
    case: Case
    outcome: Outcome
    message: str | None = None
    """What went wrong, in one line, when the outcome is not ok."""
    started_at: str
    """When the case began, in ISO 8601, UTC."""
    wall_ms: float
    memory: Memory = Memory()
    timing: Timing | None = None
    quality: tuple[Quality, ...] = ()
    """How near LSH attention comes to full attention; measured by the workload ``attention``
    only."""
    overhead: Overhead | None = None
    load: Load | None = None
    """Whom the processors served meanwhile; None where the system doesn't tell."""
    time_limit_s: float | None = None
    """The time that any one case was given when this record was made."""
    attempt: int = 1
    """A case that was disturbed is tried again; this is the last attempt, counted from 1."""
    settings: dict[str, str] = Field(default_factory=dict)
    """How the implementation was set, and which kernel ``auto`` became."""
    environment: Environment

    @classmethod
    def not_measured(
        cls,
        case: Case,
        outcome: Outcome,
        message: str | None,
        environment: Environment,
        *,
        started_at: str | None = None,
        wall_ms: float = 0.0,
        memory: Memory | None = None,
    ) -> Record:
        """Make the record of a case whose outcome is known without a worker's own record.

        Args:
            case: The case that has no record of a worker's.
            outcome: Anything but ``ok``, unless the case was predicted.
            message: What went wrong, in one line.
            environment: Where it would have run.
            started_at: When the case began; now unless it is given.
            wall_ms: What it took until then.
            memory: What was predicted or seen from outside.
        """
        return cls(
            case_id=case.id,
            case=case,
            outcome=outcome,
            message=message,
            started_at=utc_now() if started_at is None else started_at,
            wall_ms=wall_ms,
            memory=Memory() if memory is None else memory,
            environment=environment,
        )

    @property
    def finished(self) -> bool:
        """Whether the case ran to its end, or was predicted whole."""
        return self.outcome is Outcome.OK

    @property
    def is_predicted(self) -> bool:
        """Whether the allocator's figures come from fake tensors, so that nothing was run."""
        allocator = self.memory.allocator
        return allocator is not None and allocator.source == PREDICTED_SOURCE

    @property
    def is_measured(self) -> bool:
        """Whether the allocator's figures come from a real run."""
        return self.memory.allocator is not None and not self.is_predicted

    @property
    def breakdown(self) -> Breakdown | None:
        """What the bytes at the allocated peak are; None where that isn't known."""
        return None if self.memory.allocator is None else self.memory.allocator.breakdown

    @property
    def fixed_bytes(self) -> int | None:
        """The bytes of parameters, gradients and optimizer state at the peak; None without a
        breakdown.
        """
        return None if self.breakdown is None else self.breakdown.fixed_bytes

    @property
    def activation_bytes(self) -> int | None:
        """What grows with the length: the peak of a finished case less its fixed bytes.

        None where there is no breakdown, and where the peak is no more than the fixed bytes.

        Where the peak is that of the optimizer or of the build, its temporaries grow with the
        parameters. Then the peak of the forward and backward phases counts, less the same fixed
        bytes.
        """
        allocator, breakdown = self.memory.allocator, self.breakdown
        if not self.finished or allocator is None or breakdown is None:
            return None
        peak = breakdown.total_bytes
        if allocator.breakdown_phase not in ("forward", "backward"):
            phases = ("forward", "backward")
            parts = allocator.warm or allocator.cold
            peak = max((p.allocated_bytes for p in parts if p.phase in phases), default=0)
        return peak - breakdown.fixed_bytes if peak > breakdown.fixed_bytes else None

    @property
    def step_samples_ms(self) -> tuple[float, ...]:
        """The times of the warm steps, in order; none where no step was timed."""
        return () if self.timing is None else tuple(s.total_ms for s in self.timing.warm)

    @property
    def step_ms(self) -> float | None:
        """The median time of a warm step; None where none was timed or the case didn't finish."""
        return median(self.step_samples_ms) if self.finished and self.step_samples_ms else None

    @property
    def flops(self) -> int | None:
        """The FLOPs of a step's matrix products, where they were counted."""
        return None if self.timing is None else self.timing.flops

    @property
    def length_name(self) -> str | None:
        """What the case's length counts; None for a target's model that was never built."""
        return "tokens" if self.case.target is None else self.settings.get("length")

    @property
    def counted_per_step(self) -> int:
        """How much one step works on, for its throughput: tokens; examples where a length counts
        something else, whose number may grow with its square.
        """
        return self.case.tokens if self.counts_tokens else self.case.examples

    @property
    def counts_tokens(self) -> bool:
        """Whether throughput is in tokens, and not in examples."""
        return self.length_name in ("tokens", None)

    @property
    def cold_rate(self) -> float | None:
        """The throughput of a finished case that made a cold step only; None for any other."""
        if not self.finished or self.timing is None or self.timing.warm:
            return None
        return 1e3 * self.counted_per_step / self.timing.cold.total_ms

    @property
    def was_disturbed(self) -> bool:
        """Whether other processes took what the case computes on, so that its times are off."""
        return self.load is not None and self.load.disturbs(self.environment)


def utc_now() -> str:
    """Return the time in ISO 8601, UTC, to the second, as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def latest_of_each(records: Iterable[Record]) -> list[Record]:
    """Return the last record of every case, in the order in which the cases were first tried."""
    return list({record.case_id: record for record in records}.values())


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of a record."""
    schema = Record.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
