"""Data frames of records: one row per case, every figure under its own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reformer_bench.schema.quartiles import quartiles
from reformer_bench.schema.record import (
    PHASES,
    AllocatorMemory,
    Outcome,
    Record,
    StepSample,
    Timing,
)


@dataclass(frozen=True)
class Group:
    """Records that share everything but variant and length."""

    suite: str
    workload: str
    device: str
    seed: int
    batch: int | None
    """The batch of all records; None where each length has its own."""
    records: tuple[Record, ...]
    replaced: int = 0
    """How many earlier records were left out because a later one is of the same case."""
    variants: tuple[str, ...] = field(default=())
    """The variants, in order of first appearance."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """All lengths, in ascending order."""
        return tuple(sorted({record.case.length for record in self.records}))

    def cell(self, variant: str, length: int) -> Record | None:
        """Return the record of a variant at a length; None where there is none."""
        for record in self.records:
            if record.case.variant == variant and record.case.length == length:
                return record
        return None

    def series(self, variant: str) -> list[Record]:
        """Return the records of a variant, by length."""
        found = [record for record in self.records if record.case.variant == variant]
        return sorted(found, key=lambda record: record.case.length)

    def batch_at(self, length: int) -> int:
        """Return the batch that this group has at a length."""
        return next(r.case.batch for r in self.records if r.case.length == length)


def group_records(records: Iterable[Record]) -> list[Group]:
    """Sort records into groups, in order of first appearance.

    A sweep that keeps the number of tokens fixed (1,024 × 32, 2,048 × 16, ...) has another batch at
    each length, and makes one group. Otherwise every batch makes a group of its own.
    """
    buckets: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        case = record.case
        key: tuple[str, str, str, int] = (case.suite, case.workload, case.device, case.seed)
        buckets.setdefault(key, []).append(record)
    groups = []
    for key, members in buckets.items():
        batches: dict[int, set[int]] = {}
        for record in members:
            batches.setdefault(record.case.length, set()).add(record.case.batch)
        distinct = sorted({record.case.batch for record in members})
        if len(distinct) > 1 and all(len(found) == 1 for found in batches.values()):
            groups.append(_group(key, None, members))
            continue
        for batch in distinct:
            chosen = [record for record in members if record.case.batch == batch]
            groups.append(_group(key, batch, chosen))
    return groups


def _group(key: tuple[str, str, str, int], batch: int | None, records: Sequence[Record]) -> Group:
    """Make a group in which the last record of each case counts; a resumed run may have tried one
    twice.
    """
    last: dict[tuple[str, int], Record] = {}
    for record in records:
        last[record.case.variant, record.case.length] = record
    variants = tuple(dict.fromkeys(record.case.variant for record in records))
    return Group(*key, batch, tuple(last.values()), len(records) - len(last), variants)


def stopped(record: Record) -> bool:
    """Whether the case was tried or predicted, but did not finish."""
    return record.outcome not in (Outcome.OK, Outcome.SKIPPED)


BREAKDOWN = ("parameters", "gradients", "optimizer", "activations", "temporaries")
"""The kinds of memory at a peak, in the order in which tables show them."""

STEP_PHASES = ("forward", "backward", "optimizer")
"""The phases of a step that are timed."""


def case_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a data frame with one row per record, in the order of the records.

    Bytes and counts are nullable integers; what is absent is NA. ``peak_bytes`` is the allocator's
    peak of the cold and the warm step. ``median_ms``, ``lower_ms`` and ``upper_ms`` are the
    quartiles of whole warm steps. Throughput has quartiles too: its lower one comes from the slower
    quartile of times.
    """
    rows = [case_row(record) for record in records]
    return _typed(pd.DataFrame(rows, columns=list(rows[0]) if rows else None))


def case_row(record: Record) -> dict[str, Any]:
    """Return the row of one record: the same keys for every record, None for what was not
    measured.
    """
    case = record.case
    return {
        "case_id": record.case_id,
        "suite": case.suite,
        "workload": case.workload,
        "variant": case.variant,
        "implementation": case.implementation,
        "optimizer": case.optimizer,
        "batch": case.batch,
        "length": case.length,
        "device": case.device,
        "seed": case.seed,
        "outcome": record.outcome.value,
        "message": record.message,
        "started_at": record.started_at,
        "wall_ms": record.wall_ms,
        **_memory_columns(record),
        **_time_columns(record.timing, case.tokens),
        "overhead_ms": (
            None if record.overhead is None else record.overhead.start_ms + record.overhead.stop_ms
        ),
    }


def breakdown_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row for each record that has a breakdown: bytes and shares at the allocated peak."""
    rows = []
    for record in records:
        row = case_row(record)
        if row["parameters_bytes"] is None:
            continue
        total = sum(row[f"{part}_bytes"] for part in BREAKDOWN)
        kept = ("case_id", "workload", "variant", "batch", "length", "outcome")
        rows.append(
            {name: row[name] for name in kept}
            | {"breakdown_phase": row["breakdown_phase"], "total_bytes": total}
            | {f"{part}_bytes": row[f"{part}_bytes"] for part in BREAKDOWN}
            | {
                f"{part}_share": row[f"{part}_bytes"] / total if total else None
                for part in BREAKDOWN
            }
        )
    return _typed(pd.DataFrame(rows, columns=list(rows[0]) if rows else None))


def _memory_columns(record: Record) -> dict[str, Any]:
    memory, allocator, nvml = record.memory, record.memory.allocator, record.memory.nvml
    breakdown = None if allocator is None else allocator.breakdown
    return {
        "peak_bytes": memory.peak_bytes,
        "peak_source": None if allocator is None else allocator.source,
        "reserved_peak_bytes": None if allocator is None else allocator.peak_reserved_bytes,
        "predicted_peak_bytes": memory.predicted_peak_bytes,
        "nvml_device_before_bytes": None if nvml is None else nvml.device_before_bytes,
        "nvml_device_peak_bytes": None if nvml is None else nvml.device_peak_bytes,
        "nvml_process_peak_bytes": None if nvml is None else nvml.process_peak_bytes,
        "nvml_process_source": None if nvml is None else nvml.process_source,
        "energy_mj": None if nvml is None else nvml.energy_mj,
        "mean_power_mw": None if nvml is None else nvml.mean_power_mw,
        "host_before_bytes": None if memory.host is None else memory.host.before_bytes,
        "host_peak_bytes": None if memory.host is None else memory.host.peak_bytes,
        **_phase_columns(allocator),
        "breakdown_phase": None if allocator is None else allocator.breakdown_phase,
        **{
            f"{part}_bytes": None if breakdown is None else getattr(breakdown, f"{part}_bytes")
            for part in BREAKDOWN
        },
    }


def _phase_columns(allocator: AllocatorMemory | None) -> dict[str, int | None]:
    """Return the allocated and reserved peaks of each phase, cold and warm; a repeated phase has
    its highest.
    """
    columns: dict[str, int | None] = {}
    for step in ("cold", "warm"):
        parts = () if allocator is None else getattr(allocator, step)
        for phase in PHASES:
            for kind in ("allocated", "reserved"):
                values = [getattr(p, f"{kind}_bytes") for p in parts if p.phase == phase]
                known = [value for value in values if value is not None]
                columns[f"{step}_{phase}_{kind}_bytes"] = max(known, default=None)
    return columns


def _time_columns(timing: Timing | None, tokens: int) -> dict[str, Any]:
    warm = () if timing is None else timing.warm
    step = quartiles([sample.total_ms for sample in warm])
    rate = None if timing is None else timing.tokens_per_second
    if rate is None and step is not None and step.median > 0:
        rate = tokens * 1e3 / step.median
    columns: dict[str, Any] = {
        "build_ms": None if timing is None else timing.build_ms,
        "cold_ms": None if timing is None else timing.cold.total_ms,
        "n_warmup": None if timing is None else timing.n_warmup,
        "n_samples": None if timing is None else len(warm),
        "median_ms": None if step is None else step.median,
        "lower_ms": None if step is None else step.lower,
        "upper_ms": None if step is None else step.upper,
        "iqr_ms": None if step is None else step.iqr,
        "relative_iqr": None if step is None else step.relative_iqr,
        "tokens_per_second": rate,
        "tokens_per_second_lower": None if step is None else tokens * 1e3 / step.upper,
        "tokens_per_second_upper": None if step is None else tokens * 1e3 / step.lower,
        "flops": None if timing is None else timing.flops,
        "matmul_flops_per_second": None if timing is None else timing.matmul_flops_per_second,
        "matmul_share": _matmul_share(timing, None if step is None else step.median),
    }
    for phase in STEP_PHASES:
        found = quartiles(_phase_samples(warm, phase))
        cold = None if timing is None else getattr(timing.cold, f"{phase}_ms")
        columns[f"cold_{phase}_ms"] = cold
        columns[f"{phase}_median_ms"] = None if found is None else found.median
        columns[f"{phase}_iqr_ms"] = None if found is None else found.iqr
    return columns


def _phase_samples(samples: Iterable[StepSample], phase: str) -> list[float]:
    values = (getattr(sample, f"{phase}_ms") for sample in samples)
    return [value for value in values if value is not None]


def _matmul_share(timing: Timing | None, median_ms: float | None) -> float | None:
    """Return the FLOPs per second of the median step, as a share of one large matrix product's."""
    if timing is None or timing.flops is None or not timing.matmul_flops_per_second:
        return None
    return (
        None if not median_ms else timing.flops * 1e3 / median_ms / timing.matmul_flops_per_second
    )


_INTEGERS = (
    "batch",
    "length",
    "seed",
    "n_warmup",
    "n_samples",
    "flops",
    "energy_mj",
    "mean_power_mw",
)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep integers that may be absent as integers, so that bytes never print as floats."""
    kinds: Mapping[str, str] = {
        name: "Int64" if name in _INTEGERS or name.endswith("_bytes") else "Float64"
        for name in frame.columns
        if name in _INTEGERS
        or name.endswith(("_bytes", "_ms", "_share", "relative_iqr"))
        or name.startswith(("tokens_per", "matmul_flops"))
    }
    return frame.astype(dict(kinds))
