"""Words of a comparison: what grew, by how much, in which phase and in which part of the model."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_bench.check.compare import CaseComparison, Change, Comparison, Growth, Status
from reformer_bench.report.words import outcome_words
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.tolerances import Metric
from reformer_bench.schema.units import counted, format_bytes, format_tokens

_METRICS = {
    Metric.PREDICTED: "predicted peak",
    Metric.ALLOCATED: "allocated peak",
    Metric.RESERVED: "reserved peak",
    Metric.NVML: "process memory by NVML",
    Metric.RESIDENT: "resident set",
    Metric.TIME: "time of a step",
}
_SHOWN_GROWTHS = 3


def status_words(status: Status) -> str:
    """Write a status as people read it."""
    return status.value.replace("-", " ") + " in either" * (status is Status.NOT_MEASURED)


def case_name(case: Case) -> str:
    """Write a case as ``reformer, train_step, 256 × 1``."""
    return f"{case.variant}, {case.workload}, {format_tokens(case.length)} × {case.batch}"


def figure_name(change: Change) -> str:
    """Write a figure as ``allocated peak``, or of one phase as ``allocated peak, cold
    backward``.
    """
    name = _METRICS[change.metric]
    return name if change.phase is None else f"{name}, {change.step} {change.phase}"


def amount(metric: Metric, value: float) -> str:
    """Write a figure in the unit that people read."""
    return format_bytes(value) if metric.unit == "bytes" else f"{value:.3g} ms"


def share_words(change: Change) -> str:
    """Write a share as ``+16.7%``."""
    return "–" if change.share is None else f"{100 * change.share:+.3g}%"


def change_words(change: Change) -> str:
    """Write ``allocated peak grew from 12.0 MiB to 14.0 MiB (+2.00 MiB, +16.7%; tolerance
    0.5%)``.
    """
    old, new, difference = (
        amount(change.metric, value)
        for value in (change.old, change.new, abs(change.new - change.old))
    )
    verb, sign = ("grew", "+") if change.new > change.old else ("shrank", "−")
    return (
        f"{figure_name(change)} {verb} from {old} to {new} "
        f"({sign}{difference}, {share_words(change)}; tolerance {change.tolerance})"
    )


def message(found: CaseComparison) -> str:
    """Say in one line what happened to a case."""
    return f"{case_name(found.case)}: {_what(found)}"


def messages(comparison: Comparison) -> list[tuple[Status, str]]:
    """What is to be said, the worst first; cases that can't be compared for one reason in one."""
    lines: list[tuple[Status, str]] = []
    reasons: dict[str, list[CaseComparison]] = {}
    for found in comparison.having(Status.NOT_COMPARABLE):
        reasons.setdefault(_what(found), []).append(found)
    for found in comparison.worst_first:
        if found.status is Status.NOT_COMPARABLE:
            together = reasons.pop(_what(found), [])
            if together:
                one = case_name(found.case) if len(together) == 1 else ""
                fields = " ".join(f"--allow {d.field}" for d in found.differs)
                line = f"not comparable: {_what(found)} ({fields} accepts it)"
                lines.append((found.status, f"{one or counted(len(together), 'case')} {line}"))
        elif found.status is not Status.OK:
            lines.append((found.status, message(found)))
    return lines


def summary(comparison: Comparison) -> str:
    """Count the cases, as in ``40 cases: 2 regressions, 38 ok``."""
    counts = []
    for status in Status:
        n_cases, words = len(comparison.having(status)), status_words(status)
        if n_cases and status in (Status.REGRESSION, Status.IMPROVEMENT):
            counts.append(counted(n_cases, words))
        elif n_cases:
            counts.append(f"{n_cases:,} {words}")
    return f"{counted(len(comparison.cases), 'case')}: {', '.join(counts) or 'nothing to compare'}"


def notes(comparison: Comparison) -> list[str]:
    """Say what was passed over and why, each reason once."""
    lines: dict[str, None] = {}
    for found in comparison.cases:
        for metric, differs in found.not_compared:
            reasons = "; ".join(map(str, differs))
            lines[f"The {_METRICS[metric]} is not compared: {reasons}."] = None
        for metric in found.lost:
            lines[f"The {_METRICS[metric]} is in the baseline and not in this run."] = None
    return list(lines)


def _what(found: CaseComparison) -> str:
    then, now = (_end(record) for record in (found.old, found.new))
    match found.status:
        case Status.REGRESSION:
            return _regression(found)
        case Status.IMPROVEMENT:
            return change_words(found.improvements[0])
        case Status.NOT_COMPARABLE:
            return "; ".join(map(str, found.differs))
        case Status.MISSING if found.new is None:
            return "in the baseline, and this run has no such case"
        case Status.MISSING:
            return "in the baseline, and this run has no figure in common with it"
        case Status.NEW:
            return "not in the baseline" + (f", and {now} now" if now else "")
        case Status.NOW_MEASURED:
            return f"{then} in the baseline, and now measured: nothing to compare with"
        case Status.NOT_MEASURED:
            return f"not measured in either: {then} then, {now} now"
        case Status.NOW_FITS:
            return "ran out of memory, and now fits"
        case Status.NOW_OUT_OF_MEMORY | Status.NOW_FAILS:
            assert found.new is not None
            why = f": {found.new.message}" if found.new.message else ""
            return f"measured in the baseline, and now {now}{why}"
        case Status.OK:
            return "ok"


def _end(record: Record | None) -> str:
    """Say how a case without a figure ended, in words that stand in a sentence."""
    if record is None or record.finished:
        return ""
    return "not tried" if record.outcome is Outcome.SKIPPED else outcome_words(record)


def _regression(found: CaseComparison) -> str:
    """Say which figure grew most, in which phase its peak lies now, and what grew there."""
    assert found.new is not None
    first, *others = found.regressions
    words = change_words(first)
    allocator = found.new.memory.allocator
    if first.phase is None and first.metric.is_exact and allocator and allocator.breakdown_phase:
        words += f", in {allocator.breakdown_phase}"
    if found.growths:
        words += f". Grew: {_growth_words(found.growths)}"
    if found.place_growths:
        words += f". By part of the model: {_growth_words(found.place_growths)}"
    also = dict.fromkeys(_METRICS[c.metric] for c in others if c.metric is not first.metric)
    return words + (f". Also: {', '.join(also)}" if also else "")


def _growth_words(found: Sequence[Growth]) -> str:
    parts = []
    for growth in found[:_SHOWN_GROWTHS]:
        of = f" of {growth.place}" if growth.place else ""
        parts.append(f"{growth.kind}{of} +{format_bytes(growth.bytes)}")
    left = len(found) - _SHOWN_GROWTHS
    return ", ".join(parts) + (f" and {left} more" if left > 0 else "")
