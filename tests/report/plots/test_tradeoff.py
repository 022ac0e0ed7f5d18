"""A sweep over combinations of switches is drawn as time against memory, its frontiers named."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from reformer_bench.report.groups import group_records
from reformer_bench.report.plots.files import write_plots
from reformer_bench.report.plots.style import NAMED, drawing
from reformer_bench.report.plots.tradeoff import (
    Place,
    clear_places,
    places_around,
    spots,
    tradeoff_figure,
    varies_combinations,
)
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import MIB
from tests.builders import record, sweep
from tests.report.plots.test_files import assert_tidy

ATTENTIONS = {"full": 8.0, "sdpa": 4.0, "lsh": 2.0, "local": 1.0}
RESIDUALS = {"standard": 1.0, "reversible": 0.5}


def combinations(attentions: dict[str, float] = ATTENTIONS, length: int = 4096) -> list[Record]:
    """Slower and leaner by residual; local attention both faster and leaner than all."""
    return [
        record(
            f"{attention}-{residual}-1",
            length,
            peak=int(cost * share * 100 * MIB),
            samples_ms=[cost / share * 100, cost / share * 110],
            model={"attention": attention, "residual": residual},
        )
        for attention, cost in attentions.items()
        for residual, share in RESIDUALS.items()
    ]


def figure_of(records: list[Record]) -> Figure:
    (group,) = group_records(records)
    with drawing():
        figure = tradeoff_figure(group)
    assert figure is not None
    return figure


def words(records: list[Record]) -> set[str]:
    found = figure_of(records).findobj(Text)
    return {text.get_text().replace("\n", " ") for text in found if text.get_text()}


def test_combinations_are_drawn_as_a_tradeoff_and_nothing_else(tmp_path):
    written = write_plots(combinations(), tmp_path, formats=("svg",))
    assert [path.name for path in written] == ["train_step-tradeoff.svg"]


@pytest.mark.parametrize(
    "records",
    [
        sweep(lengths=[512]),
        combinations({"lsh": 1.0}),
        [*combinations(), *combinations(length=8192)],
        [*combinations(), record("deeper", 4096, model={"n_layers": 9})],
        [record(name, 4096) for name in ("a", "b", "c")],
    ],
    ids=["presets", "one-switch", "two-lengths", "two-depths", "alike"],
)
def test_anything_else_is_no_tradeoff(tmp_path, records):
    (group,) = group_records(records)
    assert not varies_combinations(group)
    written = write_plots(records, tmp_path, formats=("svg",))
    assert written
    assert not any("tradeoff" in path.name for path in written)


def test_a_missing_combination_or_two_leave_it_one():
    (group,) = group_records(combinations()[:-2])
    assert varies_combinations(group)


def test_points_are_named_in_words():
    assert {"lsh-reversible-1", "LSH, reversible"} & words(combinations()) == {"LSH, reversible"}


def test_local_attention_is_said_to_be_another_function_and_has_a_frontier_to_itself():
    found = " ".join(words(combinations()))
    assert "Local attention is not the same function as full attention" in found
    assert "local attention (not the same function)" in found
    assert "frontier without local attention" in found
    without = " ".join(words(combinations({"full": 4.0, "sdpa": 2.0, "lsh": 1.0})))
    assert "local" not in without.lower()
    assert "frontier: nothing is both faster and leaner" in without


def test_kinds_of_attention_are_told_apart_by_shape_as_well():
    (group,) = group_records(combinations())
    found = {(spot.look.colour, spot.look.marker) for spot in spots(group)}
    assert found == {(NAMED[kind].colour, NAMED[kind].marker) for kind in ATTENTIONS}
    assert len({marker for _, marker in found}) == len(found)


def test_times_have_their_spread():
    (group,) = group_records(combinations())
    assert spots(group)[0].quartiles_ms == pytest.approx((820.0, 860.0))
    assert "interquartile range" in words(combinations())


def test_no_text_overlaps_or_leaves_the_figure():
    assert_tidy(figure_of(combinations()))


def test_only_what_was_measured_to_its_end_is_a_spot():
    slow = combinations()[-1].model_copy(update={"outcome": Outcome.TIMEOUT})
    (group,) = group_records([*combinations()[:-1], slow])
    assert slow.case.variant not in {spot.variant for spot in spots(group)}


def test_too_few_measured_ones_make_no_figure():
    stopped = [r.model_copy(update={"outcome": Outcome.TIMEOUT}) for r in combinations()[2:]]
    (group,) = group_records([*combinations()[:2], *stopped])
    assert tradeoff_figure(group) is None


BOUNDS = Bbox([(0, 0), (800, 500)])
SIZE = np.array([90.0, 14.0])
NOTHING = np.empty((0, 2))


def chosen(
    *points: tuple[float, float],
    size: np.ndarray = SIZE,
    covered: np.ndarray = NOTHING,
) -> list[Place] | None:
    """Places for names of one size at some points, where a typographic point is a display unit."""
    places = [list(places_around(np.array(at), size, 1.0)) for at in points]
    return clear_places(places, covered, BOUNDS, 1.0)


@given(st.lists(st.tuples(st.floats(50, 700), st.floats(50, 450)), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_names_never_overlap_and_stay_within_bounds(points: list[tuple[float, float]]) -> None:
    boxes = [place.box for place in chosen(*points) or []]
    assert all(BOUNDS.contains(*box.min) and BOUNDS.contains(*box.max) for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_name_stands_right_of_its_point_where_there_is_room() -> None:
    (place,) = chosen((100, 100)) or []
    assert place.box.x0 > 100
    assert place.box.y0 < 100 < place.box.y1
    assert place.length == pytest.approx(7)


def test_a_name_avoids_a_line_that_goes_on_to_the_right() -> None:
    line = np.stack([np.arange(100, 800, 3), np.full(234, 100)], axis=1)
    (place,) = chosen((100, 100), covered=line) or []
    assert place.box.count_contains(line) == 0


def test_equal_points_have_their_names_in_different_places() -> None:
    places = chosen(*[(400, 250)] * 4)
    assert places is not None
    assert len({tuple(place.box.min) for place in places}) == 4


@pytest.mark.parametrize("size", [(900, 14), (90, 600)], ids=["too-wide", "too-tall"])
def test_without_room_there_are_no_places(size: tuple[float, float]) -> None:
    assert chosen((100, 100), size=np.array(size)) is None


def test_where_everything_is_covered_there_are_no_places() -> None:
    x, y = np.meshgrid(np.arange(0, 800, 5), np.arange(0, 500, 5))
    assert chosen((100, 100), covered=np.stack([x.ravel(), y.ravel()], axis=1)) is None


def test_a_line_leads_from_the_point_to_the_nearest_edge_of_its_name() -> None:
    for place in places_around(np.array([100.0, 100.0]), SIZE, 1.0):
        start, end = place.line
        assert tuple(start) == (100, 100)
        assert place.box.padded(1e-9).contains(*end)
        assert place.length <= 78 + 1e-9
