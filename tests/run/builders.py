"""Small suites, cases, orders and records for the tests of running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reformer_bench.run.executor import WorkOrder
from reformer_bench.run.expand import Part, Plan
from reformer_bench.schema.case import Case
from reformer_bench.schema.model import preset
from reformer_bench.schema.record import Environment, Memory, Outcome, Record, StepSample, Timing
from reformer_bench.schema.suite import DeviceTable, Suite
from reformer_bench.store import RunInfo

SMALL = {"d_model": 16, "d_ff": 32, "n_heads": 2, "n_layers": 1, "vocab_size": 32}


def environment(**changes: Any) -> Environment:
    fields: dict[str, Any] = {
        "device_kind": "cpu",
        "device_name": "a CPU",
        "device_memory_bytes": None,
        "cpu_model": "a CPU",
        "cpu_count": 2,
        "torch_threads": 2,
        "host_memory_bytes": 2**34,
        "os": "Linux",
        "python_version": "3.11",
        "torch_version": "2.13.0",
        "torch_build": "cpu",
        "package_version": "0.1.0",
        "allocator_settings": "",
        "hostname_hash": "c0ffee",
    }
    return Environment(**{**fields, **changes})


def suite(**changes: Any) -> Suite:
    data: dict[str, Any] = {
        "name": "tiny",
        "description": "for tests",
        "lengths": [32, 64],
        "model": SMALL,
        "variants": {"reformer": {"preset": "reformer"}, "transformer": {"preset": "transformer"}},
    }
    return Suite.model_validate({**data, **changes})


def case(variant: str = "reformer", length: int = 64, **changes: Any) -> Case:
    model = changes.pop("model", {})
    return Case(
        suite="tiny",
        variant=variant,
        model=preset(variant, **{**SMALL, **model}),
        length=length,
        **changes,
    )


def plan(cases: Sequence[Case], limits: DeviceTable | None = None) -> Plan:
    """A plan of these cases alone."""
    return Plan(suite(), "cpu", (Part(suite(), tuple(cases), limits or DeviceTable(), 0.0),))


def info(**changes: Any) -> RunInfo:
    fields = {"suite": suite(), "device": "cpu", "started_at": "t", "environment": environment()}
    return RunInfo(**{**fields, **changes})


def order(of: Case | None = None, **changes: Any) -> WorkOrder:
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


def record(
    of: Case | None = None,
    outcome: Outcome = Outcome.OK,
    *,
    step_ms: float = 10.0,
    cold_ms: float | None = None,
    message: str | None = None,
) -> Record:
    of = of or case()
    timing = Timing(
        build_ms=1.0,
        cold=StepSample(total_ms=step_ms if cold_ms is None else cold_ms),
        warm=(StepSample(total_ms=step_ms),),
        n_warmup=2,
    )
    return Record(
        case_id=of.id,
        case=of,
        outcome=outcome,
        message=message,
        started_at="2026-01-01T00:00:00+00:00",
        wall_ms=4 * step_ms,
        memory=Memory(),
        timing=timing if outcome is Outcome.OK else None,
        environment=environment(),
    )
