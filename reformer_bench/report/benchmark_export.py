"""Writes a run as the JSON file of pytest-benchmark, which its compare command and others read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from typing import Any

from reformer_bench.analysis.frames import case_row
from reformer_bench.analysis.statistics import quartiles
from reformer_bench.spec.record import Environment, Record


def export_pytest_benchmark(records: Iterable[Record], run_name: str) -> str:
    """Write a benchmark for each record with timed steps, in seconds, with its memory as
    extra_info.

    Raises ValueError where no record has any.
    """
    timed = [record for record in records if record.timing is not None and record.timing.warm]
    if not timed:
        raise ValueError("no case of the run has timed steps")
    environment = timed[0].environment
    data = {
        "machine_info": _machine(environment),
        "commit_info": {
            "id": environment.commit or "unknown",
            "time": None,
            "author_time": None,
            "dirty": (environment.commit or "").endswith("-dirty"),
            "project": run_name,
            "branch": "unknown",
        },
        "benchmarks": [_benchmark(record) for record in timed],
        "datetime": timed[0].started_at,
        "version": "5.0.0",
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _machine(environment: Environment) -> dict[str, Any]:
    return {
        "node": environment.hostname_hash,
        "processor": environment.device_name,
        "machine": environment.device_kind,
        "python_compiler": "",
        "python_implementation": "CPython",
        "python_implementation_version": environment.python_version,
        "python_version": environment.python_version,
        "python_build": ["", ""],
        "release": environment.os,
        "system": environment.os.split("-")[0],
        "cpu": {"brand_raw": environment.cpu_model, "count": environment.cpu_count},
    }


def _benchmark(record: Record) -> dict[str, Any]:
    case = record.case
    name = f"{case.variant}[{case.workload}-{case.length}x{case.batch}]"
    memory = {
        key: value
        for key, value in case_row(record).items()
        if key.endswith("_bytes") and value is not None
    }
    return {
        "group": f"{case.workload}-{case.length}x{case.batch}",
        "name": name,
        "fullname": f"{case.suite}::{name}",
        "params": {"length": case.length, "batch": case.batch},
        "param": f"{case.length}x{case.batch}",
        "extra_info": {"case_id": record.case_id, **memory, **_versions(record.environment)},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _stats([sample.total_ms / 1e3 for sample in record.timing.warm])
        if record.timing is not None
        else {},
    }


def _versions(environment: Environment) -> dict[str, Any]:
    """Return what --memory-compare asks of two files before it compares bytes."""
    return {
        "torch_version": environment.torch_version,
        "torch_threads": environment.torch_threads,
    }


def _stats(seconds: list[float]) -> dict[str, Any]:
    found = quartiles(seconds)
    assert found is not None
    mean = statistics.fmean(seconds)
    deviation = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    spread = found.upper - found.lower
    low, high = found.lower - 1.5 * spread, found.upper + 1.5 * spread
    outside = sum(not low <= one <= high for one in seconds)
    far = sum(abs(one - mean) > deviation for one in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": found.median,
        "iqr": spread,
        "q1": found.lower,
        "q3": found.upper,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": min(one for one in seconds if one >= low),
        "hd15iqr": max(one for one in seconds if one <= high),
        "ops": 1 / mean,
        "total": sum(seconds),
        "data": seconds,
        "iterations": 1,
    }
