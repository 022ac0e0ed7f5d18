"""Words of a comparison: what grew, by how much, in which phase and in which part of the model."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_bench.check.compare import (
    CaseComparison,
    Change,
    Comparison,
    Figure,
    Growth,
    Status,
    peak_phase,
)
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

STATUS_WORDS = {
    Status.NOW_OUT_OF_MEMORY: "now out of memory",
    Status.REGRESSION: "regression",
    Status.NOT_COMPARABLE: "not comparable",
    Status.MISSING: "missing",
    Status.NOW_FAILS: "now fails",
    Status.NEW: "new",
    Status.NOW_FITS: "now fits",
    Status.NOW_MEASURED: "now measured",
    Status.IMPROVEMENT: "improvement",
    Status.NOT_MEASURED: "not measured in either",
    Status.OK: "ok",
}
_COUNTABLE = frozenset({Status.REGRESSION, Status.IMPROVEMENT})
"""Whose words are nouns, and so have a plural."""


def case_name(case: Case) -> str:
    """Write a case as ``reformer, train_step, 256 × 1``."""
    return f"{case.variant}, {case.workload}, {format_tokens(case.length)} × {case.batch}"


def figure_name(figure: Figure) -> str:
    """Write a figure as ``allocated peak``, or of one phase as ``allocated peak, cold
    backward``.
    """
    name = _METRICS[figure.metric]
    return name if figure.phase is None else f"{name}, {figure.step} {figure.phase}"


def amount(figure: Figure, value: float) -> str:
    """Write a figure in the unit that people read."""
    return format_bytes(value) if figure.unit == "bytes" else f"{value:.3g} ms"


def share_words(change: Change) -> str:
    """Write a share as ``+16.7%``."""
    return "–" if change.share is None else f"{100 * change.share:+.3g}%"


def change_words(change: Change) -> str:
    """Write ``allocated peak grew from 12.0 MiB to 14.0 MiB (+2.00 MiB, +16.7%; tolerance
    0.5%)``.
    """
    figure, difference = change.figure, change.new - change.old
    verb = "grew" if difference > 0 else "shrank"
    return (
        f"{figure_name(figure)} {verb} from {amount(figure, change.old)} to "
        f"{amount(figure, change.new)} ({'+' if difference > 0 else '−'}"
        f"{amount(figure, abs(difference))}, {share_words(change)}; tolerance {change.tolerance})"
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
                lines.append((found.status, _not_comparable(together)))
        elif found.status is not Status.OK:
            lines.append((found.status, message(found)))
    return lines


def _not_comparable(together: Sequence[CaseComparison]) -> str:
    first = together[0]
    name = case_name(first.case) if len(together) == 1 else counted(len(together), "case")
    fields = " ".join(f"--allow {difference.field}" for difference in first.differs)
    return f"{name} not comparable: {_what(first)} ({fields} accepts it)"


def summary(comparison: Comparison) -> str:
    """Count the cases, as in ``40 cases: 2 regressions, 38 ok``."""
    counts = [
        _counted(status, len(cases)) for status in Status if (cases := comparison.having(status))
    ]
    n_cases = counted(len(comparison.cases), "case")
    return f"{n_cases}: {', '.join(counts) or 'nothing to compare'}"


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
    match found.status:
        case Status.REGRESSION:
            return _regression(found)
        case Status.IMPROVEMENT:
            return change_words(found.improvements[0])
        case Status.NOT_COMPARABLE:
            return "; ".join(map(str, found.differs))
        case Status.MISSING:
            return "in the baseline, " + (
                "and this run has no such case"
                if found.new is None
                else "and this run has no figure in common with it"
            )
        case Status.NEW:
            return "not in the baseline" + _unless_ok(found.new, ", and {} now")
        case Status.NOW_MEASURED:
            return f"{_end(found.old)} in the baseline, and now measured: nothing to compare with"
        case Status.NOT_MEASURED:
            return f"not measured in either: {_end(found.old)} then, {_end(found.new)} now"
        case Status.NOW_FITS:
            return "ran out of memory, and now fits"
        case Status.NOW_OUT_OF_MEMORY | Status.NOW_FAILS:
            return _ending(found)
        case Status.OK:
            return "ok"


def _counted(status: Status, n_cases: int) -> str:
    words = STATUS_WORDS[status]
    return counted(n_cases, words) if status in _COUNTABLE else f"{n_cases:,} {words}"


def _end(record: Record | None) -> str:
    """How a case without a figure ended, in words that stand in a sentence."""
    assert record is not None
    return "not tried" if record.outcome is Outcome.SKIPPED else outcome_words(record)


def _unless_ok(record: Record | None, words: str) -> str:
    assert record is not None
    return "" if record.outcome is Outcome.OK else words.format(_end(record))


def _ending(found: CaseComparison) -> str:
    assert found.new is not None
    why = f": {found.new.message}" if found.new.message else ""
    return f"measured in the baseline, and now {_end(found.new)}{why}"


def _regression(found: CaseComparison) -> str:
    first, *others = found.regressions
    words = change_words(first)
    phase = _phase(found, first)
    if phase is not None:
        words += f", in {phase}"
    causes = _growth_words(found.growths)
    if causes:
        words += f". Grew: {causes}"
    places = _growth_words(found.place_growths)
    if places:
        words += f". By part of the model: {places}"
    names = dict.fromkeys(_METRICS[c.figure.metric] for c in others)
    names.pop(_METRICS[first.figure.metric], None)
    return words + (f". Also: {', '.join(names)}" if names else "")


def _phase(found: CaseComparison, change: Change) -> str | None:
    """Return the phase in which a whole peak lies now; None where the figure names its
    own or none.
    """
    if change.figure.phase is not None or not change.figure.metric.is_exact:
        return None
    assert found.new is not None
    return peak_phase(found.new)


def _growth_words(found: Sequence[Growth]) -> str:
    parts = []
    for growth in found[:_SHOWN_GROWTHS]:
        of = f" of {growth.place}" if growth.place else ""
        parts.append(f"{growth.kind}{of} +{format_bytes(growth.bytes)}")
    left = len(found) - _SHOWN_GROWTHS
    return ", ".join(parts) + (f" and {left} more" if left > 0 else "")
