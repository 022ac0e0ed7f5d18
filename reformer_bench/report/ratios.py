"""Figures as multiples of one variant's, and how other libraries' models differ from ours."""

from __future__ import annotations

from collections.abc import Callable

from reformer_bench.analysis.frames import case_row
from reformer_bench.analysis.groups import Group
from reformer_bench.report.grid import Grid, make_grid, peak
from reformer_bench.report.words import three_figures
from reformer_bench.spec.record import Outcome, Record


def ratio_grids(group: Group, baseline: str | None) -> list[Grid]:
    """Return peak memory and time of a step as multiples of the baseline's at the same
    length.

    There are none without a baseline, or where the group doesn't have it.
    """
    if baseline not in group.variants:
        return []
    return [
        make_grid(group, f"{what}, as multiples of {baseline}", ratio, three_figures, min)
        for what, ratio in (
            ("peak memory", _relative(group, baseline, peak)),
            ("time of a step", _relative(group, baseline, _step_ms)),
        )
    ]


def mismatch_notes(group: Group) -> list[str]:
    """Say, for each variant that another library runs, what could not be matched to what
    was asked.
    """
    notes = []
    for variant in group.variants:
        told = [r for r in group.series(variant) if r.settings.get("mismatches")]
        if told:
            # The longest case: what depends on length is then said of where it matters most.
            settings = told[-1].settings
            notes.append(
                f"{variant} is {settings['library']}, pinned as its records say; it differs in: "
                f"{settings['mismatches']}."
            )
    return notes


def _relative(
    group: Group, baseline: str, value_of: Callable[[Record], float | None]
) -> Callable[[Record], float | None]:
    def ratio(record: Record) -> float | None:
        against = group.cell(baseline, record.case.length)
        base = None if against is None else value_of(against)
        value = value_of(record)
        return None if value is None or not base else value / base

    return ratio


def _step_ms(record: Record) -> float | None:
    median: float | None = case_row(record)["median_ms"]
    return median if record.outcome is Outcome.OK else None
