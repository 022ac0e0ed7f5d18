import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.report.plots.labels import Box, Label, leader, place

BOUNDS = Box(0, 0, 800, 500)
EMPTY = np.empty((0, 2))
ENDS = st.tuples(st.floats(50, 700), st.floats(50, 450))


@given(st.lists(ENDS, min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_placed_labels_never_overlap_and_stay_within_bounds(
    ends: list[tuple[float, float]],
) -> None:
    labels = [Label(x, y, 90, 14) for x, y in ends]
    boxes = place(labels, EMPTY, [], BOUNDS, 1.0)
    if boxes is None:
        return
    assert all(box.within(BOUNDS) for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_label_stands_right_of_its_point_where_there_is_room() -> None:
    (box,) = place([Label(100, 100, 90, 14)], EMPTY, [], BOUNDS, 1.0) or []
    assert box.x0 > 100
    assert box.y0 < 100 < box.y1
    assert leader(Label(100, 100, 90, 14), box, 1.0) is None


def test_a_label_avoids_a_curve_that_goes_on_to_the_right() -> None:
    curve = np.stack([np.arange(100, 800, 3), np.full(234, 100)], axis=1)
    (box,) = place([Label(100, 100, 90, 14)], curve, [], BOUNDS, 1.0) or []
    assert box.count_inside(curve) == 0


def test_equal_ends_get_different_places() -> None:
    boxes = place([Label(400, 250, 90, 14)] * 4, EMPTY, [], BOUNDS, 1.0)
    assert boxes is not None
    assert len(set(boxes)) == 4


def test_text_that_stands_already_is_left_alone() -> None:
    taken = Box(105, 50, 400, 150)
    (box,) = place([Label(100, 100, 90, 14)], EMPTY, [taken], BOUNDS, 1.0) or []
    assert not box.overlaps(taken)


@pytest.mark.parametrize("size", [(900, 14), (90, 600)], ids=["too-wide", "too-tall"])
def test_no_room_is_none(size: tuple[float, float]) -> None:
    assert place([Label(100, 100, *size)], EMPTY, [], BOUNDS, 1.0) is None


def test_no_clean_place_is_none() -> None:
    x, y = np.meshgrid(np.arange(0, 800, 5), np.arange(0, 500, 5))
    everywhere = np.stack([x.ravel(), y.ravel()], axis=1)
    assert place([Label(100, 100, 90, 14)], everywhere, [], BOUNDS, 1.0) is None


def test_a_label_farther_off_gets_a_leader_to_its_nearest_edge() -> None:
    line = leader(Label(100, 100, 90, 14), Box(150, 90, 240, 104), 1.0)
    assert line == (100, 100, 150, 100)
