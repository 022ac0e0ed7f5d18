"""Forecasts how long a case will take, from shorter cases of its series."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from reformer_bench.run.order import WorkOrder
from reformer_bench.spec.record import Outcome, Record

_LOWEST_POWER, _HIGHEST_POWER = 0.5, 2.2


def step_ms(history: Iterable[Record], length: int) -> float | None:
    """Return the time of one step at a length, in ms; None without a shorter case that
    ended.

    It continues the power law through the last two lengths. Through one point the step is taken to
    grow with the length, since underestimating costs a killed case and overestimating a result.
    """
    points = sorted(
        (record.case.length, median(sample.total_ms for sample in record.timing.warm))
        for record in history
        if record.outcome is Outcome.OK and record.timing is not None and record.timing.warm
    )
    points = [point for point in points if point[0] < length and point[1] > 0]
    if not points:
        return None
    last_length, last_ms = points[-1]
    power = 1.0
    if len(points) > 1 and points[-2][0] < last_length:
        before_length, before_ms = points[-2]
        power = math.log(last_ms / before_ms) / math.log(last_length / before_length)
        power = min(_HIGHEST_POWER, max(_LOWEST_POWER, power))
    return float(last_ms * (length / last_length) ** power)


def case_ms(history: Iterable[Record], order: WorkOrder) -> float | None:
    """Return the time of a whole case in ms; None where nothing is known of its series.

    A case makes two steps under the probes, each as much slower than a timed step as the last
    case's cold one was, and then the timed steps.
    """
    records = list(history)
    step = step_ms(records, order.case.length)
    if step is None:
        return None
    last = max(
        (r for r in records if r.timing is not None and r.timing.warm),
        key=lambda record: record.case.length,
    )
    assert last.timing is not None
    slowdown = max(1.0, last.timing.cold.total_ms / median(s.total_ms for s in last.timing.warm))
    # A long case amortises what a short one spends on starting up.
    slowdown = min(slowdown, 3.0)
    samples = max(order.min_samples, min(order.max_samples, order.sample_time_s * 1e3 / step))
    return last.timing.build_ms + step * (2 * slowdown + samples)
