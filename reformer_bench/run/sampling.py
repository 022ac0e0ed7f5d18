"""Timed steps of a workload, with no probe but the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from reformer_bench.measure.clock import StepClock
from reformer_bench.run.order import WorkOrder
from reformer_bench.run.sampling_plan import n_warmup_steps
from reformer_bench.run.workloads import Workload
from reformer_bench.spec.record import StepSample


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
    n_warmup = n_warmup_steps(order.sample_time_s, last.total_ms)
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
