"""The figures of a record as one row of a table, and data frames of such rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from reformer_bench.schema.quartiles import Quartiles, quartiles
from reformer_bench.schema.record import PHASES, Breakdown, Phase, Record

if TYPE_CHECKING:
    import pandas as pd

BREAKDOWN = ("parameters", "gradients", "optimizer", "activations", "temporaries")
"""The kinds of memory at a peak, in the order in which tables show them."""

Step = Literal["cold", "warm"]
PeakKind = Literal["allocated", "reserved"]
STEPS: tuple[Step, ...] = ("cold", "warm")

_PEAK_KINDS: tuple[PeakKind, ...] = ("allocated", "reserved")
_TIMED_PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")
_INTEGERS = {
    *("batch", "length", "seed", "n_warmup", "n_samples"),
    *("flops", "energy_mj", "mean_power_mw"),
}


@dataclass(frozen=True)
class CaseRow:
    """One record as a row of a table: what follows from its samples and phases, None where nothing
    was measured.
    """

    record: Record

    @cached_property
    def step(self) -> Quartiles | None:
        """The quartiles of whole warm steps, in milliseconds."""
        return quartiles(self.record.step_samples_ms)

    @property
    def rate(self) -> float | None:
        """The throughput at the median time of a warm step, in tokens or else in examples per
        second.
        """
        timing, step = self.record.timing, self.step
        if self.record.counts_tokens and timing is not None and timing.tokens_per_second:
            return timing.tokens_per_second
        return self._rate(step.median) if step is not None and step.median > 0 else None

    @property
    def tokens_per_second(self) -> float | None:
        """The throughput in tokens; None where the case's length counts something else."""
        return self.rate if self.record.counts_tokens else None

    @property
    def rate_quartiles(self) -> tuple[float, float] | None:
        """The throughputs at the slower and at the faster quartile of times."""
        step = self.step
        return None if step is None else (self._rate(step.upper), self._rate(step.lower))

    @property
    def matmul_share(self) -> float | None:
        """The FLOPs per second of the median step, as a share of one large matrix product's."""
        timing, step = self.record.timing, self.step
        if timing is None or timing.flops is None or not timing.matmul_flops_per_second:
            return None
        if step is None or not step.median:
            return None
        return timing.flops * 1e3 / step.median / timing.matmul_flops_per_second

    @property
    def overhead_ms(self) -> float | None:
        """The time that it took to start and stop the case."""
        overhead = self.record.overhead
        return None if overhead is None else overhead.start_ms + overhead.stop_ms

    def phase_peak_bytes(self, step: Step, phase: Phase, kind: PeakKind) -> int | None:
        """Return the peak of a phase; a phase that was repeated has its highest."""
        allocator = self.record.memory.allocator
        if allocator is None:
            return None
        parts = allocator.cold if step == "cold" else allocator.warm
        sizes = [
            part.allocated_bytes if kind == "allocated" else part.reserved_bytes
            for part in parts
            if part.phase == phase
        ]
        return max((size for size in sizes if size is not None), default=None)

    def cold_phase_ms(self, phase: Phase) -> float | None:
        """Return the time of a phase of the first step, or that of the build."""
        timing = self.record.timing
        if timing is None:
            return None
        return timing.build_ms if phase == "build" else getattr(timing.cold, f"{phase}_ms")

    def warm_phase(self, phase: Phase) -> Quartiles | None:
        """Return the quartiles of a phase's times in warm steps, in milliseconds."""
        samples = () if self.record.timing is None else self.record.timing.warm
        times = [getattr(sample, f"{phase}_ms", None) for sample in samples]
        return quartiles([time for time in times if time is not None])

    def columns(self) -> dict[str, Any]:
        """Return all figures by the names of the exports' columns, in their order."""
        record, case, timing, step = self.record, self.record.case, self.record.timing, self.step
        allocator, nvml, host = record.memory.allocator, record.memory.nvml, record.memory.host
        parts = record.breakdown
        of_tokens = self.rate_quartiles if record.counts_tokens else None
        slower, faster = of_tokens or (None, None)
        columns = {
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
            "peak_bytes": record.memory.peak_bytes,
            "peak_source": None if allocator is None else allocator.source,
            "reserved_peak_bytes": None if allocator is None else allocator.peak_reserved_bytes,
            "predicted_peak_bytes": record.memory.predicted_peak_bytes,
            "nvml_device_before_bytes": None if nvml is None else nvml.device_before_bytes,
            "nvml_device_peak_bytes": None if nvml is None else nvml.device_peak_bytes,
            "nvml_process_peak_bytes": None if nvml is None else nvml.process_peak_bytes,
            "nvml_process_source": None if nvml is None else nvml.process_source,
            "energy_mj": None if nvml is None else nvml.energy_mj,
            "mean_power_mw": None if nvml is None else nvml.mean_power_mw,
            "host_before_bytes": None if host is None else host.before_bytes,
            "host_peak_bytes": None if host is None else host.peak_bytes,
            **{
                f"{which}_{phase}_{kind}_bytes": self.phase_peak_bytes(which, phase, kind)
                for which in STEPS
                for phase in PHASES
                for kind in _PEAK_KINDS
            },
            "breakdown_phase": None if allocator is None else allocator.breakdown_phase,
            **{
                f"{kind}_bytes": None if parts is None else breakdown_bytes(parts, kind)
                for kind in BREAKDOWN
            },
            "build_ms": self.cold_phase_ms("build"),
            "cold_ms": None if timing is None else timing.cold.total_ms,
            "n_warmup": None if timing is None else timing.n_warmup,
            "n_samples": None if timing is None else len(timing.warm),
            "median_ms": None if step is None else step.median,
            "lower_ms": None if step is None else step.lower,
            "upper_ms": None if step is None else step.upper,
            "iqr_ms": None if step is None else step.iqr,
            "relative_iqr": None if step is None else step.relative_iqr,
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_second_lower": slower,
            "tokens_per_second_upper": faster,
            "flops": record.flops,
            "matmul_flops_per_second": None if timing is None else timing.matmul_flops_per_second,
            "matmul_share": self.matmul_share,
        }
        for phase in _TIMED_PHASES:
            warm = self.warm_phase(phase)
            columns[f"cold_{phase}_ms"] = self.cold_phase_ms(phase)
            columns[f"{phase}_median_ms"] = None if warm is None else warm.median
            columns[f"{phase}_iqr_ms"] = None if warm is None else warm.iqr
        return {**columns, "overhead_ms": self.overhead_ms}

    def _rate(self, milliseconds: float) -> float:
        return self.record.counted_per_step * 1e3 / milliseconds


def breakdown_bytes(breakdown: Breakdown, kind: str) -> int:
    """Return the bytes of one of ``BREAKDOWN``."""
    return int(getattr(breakdown, f"{kind}_bytes"))


def foreseen_bytes(record: Record) -> int | None:
    """Return the predicted peak of a case that did not finish; None of any other."""
    return None if record.finished else record.memory.predicted_peak_bytes


def case_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a data frame with one row per record, in the order of the records.

    Bytes and counts are nullable integers; what is absent is NA. ``peak_bytes`` is the allocator's
    peak of the cold and the warm step. ``median_ms``, ``lower_ms`` and ``upper_ms`` are the
    quartiles of whole warm steps. Throughput has quartiles too: its lower one comes from the slower
    quartile of times.
    """
    return _typed([CaseRow(record).columns() for record in records])


def breakdown_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row for each record that has a breakdown: bytes and shares at the allocated peak."""
    rows = []
    names = ("case_id", "workload", "variant", "batch", "length", "outcome", "breakdown_phase")
    for record in records:
        if record.breakdown is None:
            continue
        columns, total = CaseRow(record).columns(), record.breakdown.total_bytes
        sizes = {f"{kind}_bytes": columns[f"{kind}_bytes"] for kind in BREAKDOWN}
        shares = {
            f"{kind}_share": columns[f"{kind}_bytes"] / total if total else None
            for kind in BREAKDOWN
        }
        rows.append({**{n: columns[n] for n in names}, "total_bytes": total, **sizes, **shares})
    return _typed(rows)


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Keep integers that may be absent as integers, so that bytes never print as floats."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else None)
    kinds = {
        name: "Int64" if name in _INTEGERS or name.endswith("_bytes") else "Float64"
        for name in frame.columns
        if name in _INTEGERS
        or name.endswith(("_bytes", "_ms", "_share", "relative_iqr"))
        or name.startswith(("tokens_per", "matmul_flops"))
    }
    return frame.astype(kinds)
