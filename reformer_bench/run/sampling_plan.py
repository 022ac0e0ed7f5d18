"""Sampling plan: how many steps a case takes besides the timed ones. No torch."""

from __future__ import annotations

COUNTED_STEP_MS = 2000.0
"""Counting operations runs one more step; a step longer than this is not repeated for it."""

# Warm-up beyond the probed steps: as long as it stays a small part of the sampling time.
_WARMUP_SHARE = 0.25
_MOST_WARMUP_STEPS = 3


def n_warmup_steps(sample_time_s: float, step_ms: float) -> int:
    """Steps between the probed ones and the timed ones; a slow workload needs none."""
    share_ms = sample_time_s * 1e3 * _WARMUP_SHARE
    return min(_MOST_WARMUP_STEPS, int(share_ms / max(step_ms, 1e-3)))
