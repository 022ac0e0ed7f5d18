"""Changes: the figures of two records of one case, each judged by its tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Literal

from reformer_bench.spec.record import Phase, Record
from reformer_bench.spec.tolerances import Metric, Tolerance

_SIGNIFICANCE = 0.01
"""How unlikely slower samples must be by chance, for them to count as slower."""

Step = Literal["cold", "warm"]


class Verdict(StrEnum):
    """How a figure has changed."""

    OK = "ok"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"


@dataclass(frozen=True)
class Figure:
    """Which figure of a record is meant: what measured it, and in which phase."""

    metric: Metric
    step: Step | None = None
    phase: Phase | None = None
    """None stands for the highest of all phases."""

    @property
    def unit(self) -> Literal["bytes", "ms"]:
        """The unit that the figure is counted in."""
        return "ms" if self.metric is Metric.TIME else "bytes"


@dataclass(frozen=True)
class Change:
    """The old and the new value of a figure, and whether its tolerance allows the change."""

    figure: Figure
    old: float
    new: float
    tolerance: Tolerance
    verdict: Verdict
    p_value: float | None = None
    """For times: how likely samples differ this much by chance."""

    @property
    def share(self) -> float | None:
        """The growth as a share of the old value; None where that is zero."""
        return (self.new - self.old) / self.old if self.old else None

    @property
    def is_gated(self) -> bool:
        """Whether the verdict decides about the exit code."""
        return self.tolerance.gate


def figures(record: Record) -> dict[Figure, float]:
    """Return every figure of a record that is compared: bytes, and the median time of a
    warm step.
    """
    found: dict[Figure, float] = {}
    memory, allocator = record.memory, record.memory.allocator
    if allocator is not None:
        predicted = allocator.source == "fake-tensor"
        metric = Metric.PREDICTED if predicted else Metric.ALLOCATED
        found[Figure(metric)] = allocator.peak_allocated_bytes
        for step, parts in (("cold", allocator.cold), ("warm", allocator.warm)):
            for part in parts:
                key = Figure(metric, "cold" if step == "cold" else "warm", part.phase)
                found[key] = max(part.allocated_bytes, found.get(key, 0))
        if allocator.peak_reserved_bytes is not None:
            found[Figure(Metric.RESERVED)] = allocator.peak_reserved_bytes
    if memory.predicted_peak_bytes is not None:
        found.setdefault(Figure(Metric.PREDICTED), memory.predicted_peak_bytes)
    if memory.nvml is not None and memory.nvml.process_peak_bytes is not None:
        found[Figure(Metric.NVML)] = memory.nvml.process_peak_bytes
    if memory.host is not None:
        found[Figure(Metric.RESIDENT)] = memory.host.peak_bytes
    if samples_ms(record):
        found[Figure(Metric.TIME)] = median(samples_ms(record))
    return found


def samples_ms(record: Record) -> list[float]:
    """Return the times of the warm steps."""
    return [] if record.timing is None else [sample.total_ms for sample in record.timing.warm]


def change_of(
    figure: Figure, old: float, new: float, tolerance: Tolerance, samples: tuple[list[float], ...]
) -> Change:
    """Compare the old and the new value of a figure, and judge the change.

    ``samples`` are the times of both records. A time counts as changed only where its median left
    the tolerance and the samples differ by more than chance (Mann-Whitney's test, one-sided).
    """
    verdict = Verdict.OK
    if not tolerance.allows(old, new):
        verdict = Verdict.REGRESSION
    elif not tolerance.allows(new, old):
        verdict = Verdict.IMPROVEMENT
    if figure.metric is not Metric.TIME:
        return Change(figure, old, new, tolerance, verdict)
    p_value = _p_value(*samples) if new >= old else _p_value(*reversed(samples))
    if p_value >= _SIGNIFICANCE:
        verdict = Verdict.OK
    return Change(figure, old, new, tolerance, verdict, p_value)


def _p_value(faster: list[float], slower: list[float]) -> float:
    """Return how likely it is by chance that ``slower`` is so much slower."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(slower, faster, alternative="greater").pvalue)
