"""Timed steps of a workload, with no probe but the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from reformer_bench.measure.clock import StepClock
from reformer_bench.run.order import WorkOrder
from reformer_bench.run.workloads import Workload
from reformer_bench.spec.record import StepSample

# Warm-up beyond the probed steps: as long as it stays a small part of the sampling time.
_WARMUP_SHARE = 0.25
_WARMUP_STEPS = 3


@dataclass(frozen=True)
class Samples:
    """The timed steps, in order, and how many steps ran before the first of them."""

    steps: tuple[StepSample, ...]
    n_before: int

    @property
    def median_ms(self) -> float:
        """The median of the steps' whole times."""
        return median(step.total_ms for step in self.steps)


def timed_steps(
    workload: Workload,
    device: torch.device,
    order: WorkOrder,
    last: StepSample,
    n_before: int,
) -> Samples:
    """Warm up, then time steps until the sampling time is over or there are enough.

    ``last`` is the step before; a slow workload is warmed up no further, since two of its steps
    have run already.
    """
    clock = StepClock(device)
    share_ms = order.sample_time_s * 1e3 * _WARMUP_SHARE
    n_warmup = min(_WARMUP_STEPS, int(share_ms / max(last.total_ms, 1e-3)))
    for _ in range(n_warmup):
        workload.step(clock.phase)
        clock.finish()
    steps: list[StepSample] = []
    began = time.monotonic()
    while len(steps) < order.max_samples:
        if len(steps) >= order.min_samples and time.monotonic() - began >= order.sample_time_s:
            break
        workload.step(clock.phase)
        steps.append(clock.finish())
    return Samples(tuple(steps), n_before + n_warmup)
