"""The frontier holds what nobody beats, and the choice is the fastest of what fits."""

from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.report.frontier import Option, beats, fastest_within, frontier

OPTIONS = st.lists(
    st.builds(
        Option,
        name=st.uuids().map(str),
        peak_bytes=st.floats(1, 1e12),
        cost=st.floats(1, 1e6),
    ),
    min_size=1,
    max_size=20,
)


@given(OPTIONS)
def test_who_is_off_the_frontier_is_beaten_and_who_is_on_it_is_not(options):
    kept = frontier(options)
    assert kept
    for option in options:
        assert (option in kept) is not any(beats(other, option) for other in options)


def test_the_frontier_of_points_by_hand():
    points = {"fast": (9, 1), "middle": (5, 5), "lean": (1, 9), "behind": (6, 5), "worst": (9, 9),
              "hardly faster": (9, 0.99), "gone": (0.5, 0.5)}  # fmt: skip
    options = [Option(name, *at, ran_out=name == "gone") for name, at in points.items()]
    assert [option.name for option in frontier(options)] == [
        "hardly faster",
        "fast",
        "middle",
        "lean",
    ]


@given(OPTIONS, st.floats(1, 1e12))
def test_the_choice_fits_and_none_that_fits_is_faster_by_more_than_a_tie(options, budget):
    best = fastest_within(options, budget)
    fitting = [option for option in options if option.peak_bytes <= budget]
    assert (best is None) is (not fitting)
    if best is not None:
        assert best.peak_bytes <= budget
        assert all(best.cost * 0.98 <= option.cost * (1 + 1e-12) for option in fitting)


def test_what_ran_out_when_measured_is_not_chosen():
    gone, slow = Option("gone", 1.0, 1.0, ran_out=True), Option("slow", 2.0, 9.0)
    assert fastest_within([gone, slow], 10.0) == slow


def test_of_equally_fast_ones_the_leanest_is_chosen():
    lean, wide = Option("lean", 1.0, 100.5), Option("wide", 9.0, 100.0)
    assert fastest_within([wide, lean], 10.0) == lean
