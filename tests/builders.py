"""What tests are made from: suites, cases, work orders, and records with chosen figures.

Nothing here imports torch, so that a worker of the tests starts fast; models are in
``tests/models.py``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import Any

from reformer_bench.run.executor import WorkOrder
from reformer_bench.run.expand import Part, Plan
from reformer_bench.schema.case import Case
from reformer_bench.schema.explanation import Explanation, Holder
from reformer_bench.schema.model import PRESETS, preset
from reformer_bench.schema.prediction import Prediction
from reformer_bench.schema.record import (
    AllocatorMemory,
    Breakdown,
    Environment,
    HostMemory,
    Memory,
    NvmlMemory,
    Outcome,
    Overhead,
    PhasePeak,
    Record,
    StepSample,
    Timing,
)
from reformer_bench.schema.suite import DeviceTable, Suite
from reformer_bench.schema.units import GIB, MIB
from reformer_bench.store import RunInfo

TINY = {"d_model": 16, "d_ff": 32, "n_heads": 2, "n_layers": 1, "vocab_size": 32}
"""The model of a case that a test really runs."""

LENGTHS = tuple(2**power for power in range(9, 21))
"""The lengths of a sweep."""

PARAMETERS_BYTES = 30 * MIB
"""What a record's parameters take, its gradients as much, and Adam's state twice that."""


def environment(device: str = "cpu", **changes: Any) -> Environment:
    """A two-core CPU machine, or one with an H100."""
    cuda = device != "cpu"
    fields: dict[str, Any] = {
        "device_kind": "cuda" if cuda else "cpu",
        "device_name": "NVIDIA H100 80GB HBM3" if cuda else "Intel Xeon Platinum 8481C",
        "device_memory_bytes": 79 * GIB if cuda else None,
        "driver_version": "570.86" if cuda else None,
        "cuda_version": "12.8" if cuda else None,
        "cpu_model": "Intel Xeon Platinum 8481C",
        "cpu_count": 2,
        "torch_threads": 2,
        "host_memory_bytes": 16 * GIB,
        "os": "Linux",
        "python_version": "3.11.2",
        "torch_version": "2.13.0",
        "torch_build": "12.8" if cuda else "cpu",
        "package_version": "0.1.0",
        "allocator_settings": "",
        "hostname_hash": "c0ffee",
    }
    return Environment(**{**fields, **changes})


def suite(**changes: Any) -> Suite:
    """A suite of two tiny models at two lengths."""
    data: dict[str, Any] = {
        "name": "tiny",
        "description": "for tests",
        "lengths": [32, 64],
        "model": TINY,
        "variants": {"reformer": {"preset": "reformer"}, "transformer": {"preset": "transformer"}},
    }
    return Suite.model_validate({**data, **changes})


def run_info(**changes: Any) -> RunInfo:
    """What the folder of a run of the tiny suite says of it."""
    fields: dict[str, Any] = {
        "suite": suite(),
        "device": "cpu",
        "started_at": "2026-01-01T00:00:00+00:00",
        "environment": environment(),
    }
    return RunInfo(**{**fields, **changes})


def case(variant: str = "reformer", length: int = 64, **changes: Any) -> Case:
    """A tiny case, which a test can really run; ``model`` changes single switches."""
    model = preset(variant, **{**TINY, **changes.pop("model", {})})
    return Case(suite="tiny", variant=variant, model=model, length=length, **changes)


def plan(cases: Sequence[Case], limits: DeviceTable | None = None) -> Plan:
    """A plan of these cases alone."""
    return Plan(suite(), "cpu", (Part(suite(), tuple(cases), limits or DeviceTable(), 0.0),))


def order(of: Case | None = None, **changes: Any) -> WorkOrder:
    """What a worker is told to do: a case with few samples."""
    fields: dict[str, Any] = {
        "case": of or case(),
        "environment": environment(),
        "timeout_s": 60.0,
        "timeout_reason": "the time limit of a case",
        "min_samples": 1,
        "max_samples": 3,
        "sample_time_s": 0.05,
    }
    return WorkOrder(**{**fields, **changes})


def memory(peak: int, device: str = "cpu", predicted: int | None = None) -> Memory:
    """Memory whose backward phase holds the peak, 30 MiB of it parameters."""
    cuda = device != "cpu"
    parts = (("build", 0.1), ("forward", 0.8), ("backward", 1.0), ("optimizer", 0.4))
    peaks = tuple(
        PhasePeak(
            phase=phase,
            allocated_bytes=int(share * peak),
            reserved_bytes=int(share * peak * 1.1) if cuda else None,
        )
        for phase, share in parts
    )
    fixed = min(PARAMETERS_BYTES, peak // 8)
    rest = peak - 4 * fixed
    return Memory(
        allocator=AllocatorMemory(
            source="cuda-allocator" if cuda else "cpu-allocator-events",
            cold=peaks,
            warm=peaks,
            breakdown=Breakdown(
                parameters_bytes=fixed,
                gradients_bytes=fixed,
                optimizer_bytes=2 * fixed,
                activations_bytes=rest * 3 // 4,
                temporaries_bytes=rest - rest * 3 // 4,
            ),
            breakdown_phase="backward",
        ),
        nvml=NvmlMemory(
            device_before_bytes=500 * MIB,
            device_peak_bytes=int(1.1 * peak) + 900 * MIB,
            process_peak_bytes=int(1.1 * peak) + 400 * MIB,
            process_source="process",
            energy_mj=200_000,
            mean_power_mw=350_000,
            n_samples=40,
        )
        if cuda
        else None,
        host=HostMemory(before_bytes=400 * MIB, peak_bytes=400 * MIB + (0 if cuda else peak)),
        predicted_peak_bytes=predicted,
    )


def timing(samples_ms: Sequence[float], cold_ms: float) -> Timing:
    """Timing whose steps split 30:60:10 into phases."""

    def step(total: float) -> StepSample:
        return StepSample(
            total_ms=total,
            forward_ms=0.3 * total,
            backward_ms=0.6 * total,
            optimizer_ms=0.1 * total,
        )

    return Timing(
        build_ms=120.0,
        cold=step(cold_ms),
        warm=tuple(step(sample) for sample in samples_ms),
        n_warmup=1,
        flops=int(0.1e9 * median(samples_ms)) if samples_ms else None,
        matmul_flops_per_second=350e9,
    )


def prediction(peak_bytes: int = 1, flops: int = 1) -> Prediction:
    peak = PhasePeak(phase="forward", allocated_bytes=peak_bytes)
    return Prediction(AllocatorMemory(source="fake-tensor", cold=(peak,)), flops)


def explanation() -> Explanation:
    """What fills a peak of 1,000 MiB: layers alike, something large, and the model itself."""
    path = "a_package/models/transformer/modeling_transformer.py"
    scores = [
        Holder(
            module=f"layers.{layer}.attention",
            operator="_softmax",
            line=f"{path}:80",
            your_line="train.py:12",
            held_bytes=200 * MIB,
            kind="activations",
            shape=(1, 8, 2560, 2560),
            dtype="float32",
        )
        for layer in range(2)
    ]
    gradient = scores[1].model_copy(
        update={
            "operator": "_softmax_backward_data",
            "backward_of": "_softmax",
            "kind": "temporaries",
        }
    )
    fixed = [
        Holder(
            module=f"layers.{layer}.output",
            tensor=name,
            operator="zeros_like",
            line="train.py:20",
            held_bytes=100 * MIB,
            kind=kind,
            shape=(5120, 5120),
            dtype="float32",
        )
        for kind, name in (("parameters", "weight"), ("optimizer", "weight[exp_avg]"))
        for layer in range(2)
    ]
    return Explanation(
        module="layers.1.attention",
        operator="_softmax_backward_data",
        backward_of="_softmax",
        line=f"{path}:80",
        your_line="train.py:12",
        peak_bytes=1000 * MIB,
        step="warm",
        phase="backward",
        holders=(*scores, gradient, *fixed),
    )


def record_of(
    of: Case | None = None,
    outcome: Outcome = Outcome.OK,
    *,
    peak: int | None = None,
    step_ms: float | Sequence[float] = 10.0,
    cold_ms: float | None = None,
    predicted: int | None = None,
    message: str | None = None,
) -> Record:
    """The record of a case (a tiny one), with times where it ended well and memory from ``peak``.

    ``step_ms`` has the time of every warm step; without ``cold_ms`` the cold one takes the same.
    """
    of = of or case()
    samples_ms = (step_ms,) if isinstance(step_ms, int | float) else tuple(step_ms)
    cold_ms = max(samples_ms, default=100.0) if cold_ms is None else cold_ms
    ended = outcome is Outcome.OK
    return Record(
        case_id=of.id,
        case=of,
        outcome=outcome,
        message=message,
        started_at="2026-01-15T10:00:00Z",
        wall_ms=4 * cold_ms,
        memory=memory(peak, of.device, predicted)
        if ended and peak is not None
        else Memory(predicted_peak_bytes=predicted),
        timing=timing(samples_ms, cold_ms) if ended else None,
        overhead=Overhead(start_ms=110.0, stop_ms=12.0),
        environment=environment(of.device),
    )


def record(
    variant: str = "reformer",
    length: int = 1024,
    outcome: Outcome = Outcome.OK,
    *,
    peak: int | None = 217 * MIB,
    samples_ms: Sequence[float] = (100.0, 101.0, 102.0),
    predicted: int | None = None,
    device: str = "cpu",
    message: str | None = None,
    model: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """One record of a sweep; without a peak it has neither allocator figures nor times.

    A variant that names no preset is a reformer. ``changes`` are fields of the case.
    """
    base = variant if variant in PRESETS else "reformer"
    fields: dict[str, Any] = {
        "suite": "seq-scaling",
        "variant": variant,
        "model": preset(base, **{"max_length": 2**20, **(model or {})}),
        "length": length,
        "device": device,
    }
    made = record_of(
        Case(**{**fields, **changes}),
        outcome,
        peak=peak,
        step_ms=samples_ms,
        cold_ms=2 * max(samples_ms, default=100.0),
        predicted=predicted,
        message=message,
    )
    return made if peak is not None else made.model_copy(update={"timing": None})


# Bytes of a step and seconds of a step, as coefficients of L and L².
_COSTS = {
    "transformer": (46e3, 66.0, 1.0, 6.0),
    "reversible-transformer": (30e3, 34.0, 1.25, 8.0),
    "chunked-reversible-transformer": (12e3, 33.0, 1.35, 8.2),
    "lsh-transformer": (190e3, 0.0, 7.0, 0.0),
    "reformer": (12.5e3, 0.0, 8.0, 0.0),
    "flash-transformer": (44e3, 0.0, 0.8, 1.1),
}
_MACHINES = {  # bytes of memory, microseconds a token, milliseconds a step at least, limit in ms
    "cpu": (6 * GIB, 25.0, 9.0, 25_000.0),
    "cuda": (79 * GIB, 0.35, 14.0, 60_000.0),
}


def sweep(
    device: str = "cpu",
    *,
    variants: Sequence[str] = tuple(_COSTS),
    lengths: Sequence[int] = LENGTHS,
    predictions: bool = False,
    **case: Any,
) -> list[Record]:
    """A sweep over lengths that stops each variant where memory or time runs out."""
    noise = random.Random(7)
    room, per_token, floor, limit = _MACHINES[device]
    records = []
    for variant in variants:
        linear, quadratic, linear_time, quadratic_time = _COSTS[variant]
        over = False
        for length in lengths:
            peak = int(90 * MIB + linear * length + quadratic * length**2)
            step = floor + per_token * 1e-3 * length * (
                linear_time + quadratic_time * length / 65536 * 4
            )
            outcome = Outcome.OK
            if over:
                outcome = Outcome.SKIPPED
            elif peak > room:
                outcome = Outcome.OVER_BUDGET if predictions else Outcome.DEVICE_OOM
            elif 2 * step > limit:
                outcome = Outcome.TIMEOUT
            over = outcome is not Outcome.OK
            n_samples = max(2, min(20, int(5_000 / step)))
            records.append(
                record(
                    variant,
                    length,
                    outcome,
                    peak=peak,
                    samples_ms=[step * noise.lognormvariate(0, 0.04) for _ in range(n_samples)],
                    predicted=peak if predictions else None,
                    device=device,
                    **case,
                )
            )
    return records


def as_predicted(one: Record) -> Record:
    """The record as a run on fake tensors would have left it."""
    assert one.memory.allocator is not None
    allocator = one.memory.allocator.model_copy(update={"source": "fake-tensor"})
    memory = one.memory.model_copy(update={"allocator": allocator})
    return one.model_copy(update={"memory": memory, "timing": None})
