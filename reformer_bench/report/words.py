"""Words and figures that tables and plots share: outcomes, rates, names, workloads."""

from __future__ import annotations

import re

from reformer_bench.report.frames import Group
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import format_tokens

WORKLOADS = {
    "train_step": "training step",
    "forward": "forward pass and loss, no gradients",
    "attention": "one attention sublayer, forward and backward",
}

SOURCES = {
    "cuda-allocator": "PyTorch's CUDA allocator",
    "cpu-allocator-events": "PyTorch's CPU allocator",
    "fake-tensor": "a run on fake tensors (predicted, not measured)",
}

_OUTCOMES = {
    Outcome.OK: "ok",
    Outcome.DEVICE_OOM: "out of memory",
    Outcome.HOST_OOM: "out of memory",
    Outcome.OVER_BUDGET: "over budget",
    Outcome.TIMEOUT: "time limit",
    Outcome.KILLED: "killed",
    Outcome.ERROR: "error",
    Outcome.SKIPPED: "–",
}


def outcome_words(record: Record) -> str:
    """Say in two or three words how a case ended; on CUDA, whose memory ran out."""
    if record.outcome is Outcome.HOST_OOM and record.environment.device_kind == "cuda":
        return "out of host memory"
    return _OUTCOMES[record.outcome]


def three_figures(value: float) -> str:
    """Write a positive number in three figures: 0.0123, 5.30, 48.1, 328, 1,230."""
    if value >= 999.5:
        digits = len(str(round(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:#.3g}".rstrip(".") if value >= 1e-4 else f"{value:.2g}"


def rate_figure(tokens_per_second: float) -> str:
    """Write thousands of tokens per second in three figures."""
    return three_figures(tokens_per_second / 1e3)


def rate_tick(tokens_per_second: float) -> str:
    """Write a throughput as axes show it: 500, 20k, 1M (powers of ten)."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tokens_per_second >= size:
            return f"{tokens_per_second / size:g}{unit}"
    return f"{tokens_per_second:g}"


def duration_tick(milliseconds: float) -> str:
    """Write a duration as axes show it: 50 ms, 2 s."""
    return f"{milliseconds / 1e3:g} s" if milliseconds >= 1e3 else f"{milliseconds:g} ms"


def percent(share: float) -> str:
    """Write a share as a percentage in about two figures: 0.4%, 7.3%, 45%."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.1f}%"


def split_name(name: str, width: int) -> list[str]:
    """Split a variant's name into lines of at most ``width``, after hyphens and
    underscores.

    A part longer than that stays whole.
    """
    lines = [""]
    for part in re.findall(r"[^-_]*[-_]|[^-_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def row_name(group: Group, length: int) -> str:
    """Write a row's name: ``16K``, or ``16K × 2`` in a group whose batch changes with the
    length.
    """
    if group.batch is not None:
        return format_tokens(length)
    return f"{format_tokens(length)} × {group.batch_at(length)}"


def setting_words(group: Group) -> str:
    """Say what sets a group apart: ``batch 8``, a fixed number of tokens, a seed that isn't 0."""
    if group.batch is not None:
        words = f"batch {group.batch}"
    else:
        tokens = sorted({record.case.tokens for record in group.records})
        words = (
            f"{format_tokens(tokens[0])} tokens a step"
            if len(tokens) == 1
            else "batch changes with length"
        )
    return words if group.seed == 0 else f"{words}, seed {group.seed}"
