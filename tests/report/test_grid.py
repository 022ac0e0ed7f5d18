"""Ratios to a baseline: right numbers, and nothing where a figure is missing."""

import pytest

from reformer_bench.report.export import export_markdown
from reformer_bench.report.grid import ratio_grids
from reformer_bench.report.groups import group_records
from reformer_bench.report.words import outcome_words
from tests.builders import sweep


def group():
    return group_records(sweep())[0]


def test_the_baseline_is_one_and_the_others_multiples_of_it():
    found = group()
    baseline, other = found.variants[-1], found.variants[0]
    grids = ratio_grids(found, baseline)
    assert [grid.quantity for grid in grids] == [
        f"peak memory, as multiples of {baseline}",
        f"time of a step, as multiples of {baseline}",
    ]
    length = found.lengths[0]
    cells = dict(zip(found.variants, grids[0].rows[0][1], strict=True))
    assert cells[baseline].lines == ("1.00",)
    peaks = [found.cell(name, length).memory.peak_bytes for name in (other, baseline)]
    assert float(cells[other].lines[0]) == pytest.approx(peaks[0] / peaks[1], rel=6e-3)


def test_cells_without_a_figure_say_why():
    found = group()
    stopped = next(r for r in found.records if r.outcome.is_stop)
    (memory, _), row = ratio_grids(found, "reformer"), found.lengths.index(stopped.case.length)
    cell = memory.rows[row][1][found.variants.index(stopped.case.variant)]
    assert not cell.is_figure
    assert cell.lines[0] == outcome_words(stopped)


@pytest.mark.parametrize("baseline", [None, "nobody"])
def test_without_a_baseline_there_are_none(baseline):
    assert ratio_grids(group(), baseline) == []


def test_markdown_has_them_too():
    assert "As multiples" not in export_markdown(sweep(), "summary")
    assert "as multiples of reformer" in export_markdown(sweep(), "summary", "reformer")
