import pytest

from reformer_bench.analysis.groups import group_records
from reformer_bench.report.curves import Curve, Quantity, curves
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import GIB, MIB
from tests.report.builders import record


def only(records: list[Record], quantity: Quantity = "memory") -> Curve:
    (group,) = group_records(records)
    (curve,) = curves(group, quantity)
    return curve


def test_measured_points_are_the_allocators_peak() -> None:
    curve = only([record(length=512, peak=100 * MIB), record(length=1024, peak=150 * MIB)])
    assert [(p.length, p.value, p.is_predicted) for p in curve.points] == [
        (512, 100 * MIB, False),
        (1024, 150 * MIB, False),
    ]


def test_a_stop_without_a_figure_continues_the_last_slope() -> None:
    records = [
        record(length=512, peak=100 * MIB),
        record(length=1024, peak=400 * MIB),
        record(length=2048, outcome=Outcome.DEVICE_OOM),
    ]
    (stop,) = only(records).stops
    assert (stop.length, stop.kind, stop.is_predicted) == (2048, "memory", False)
    assert stop.value == pytest.approx(1600 * MIB)


def test_a_stop_with_a_prediction_is_drawn_at_it() -> None:
    records = [
        record(length=512),
        record(length=1024, outcome=Outcome.OVER_BUDGET, predicted=23 * GIB),
    ]
    curve = only(records)
    assert [(s.value, s.is_predicted) for s in curve.stops] == [(23 * GIB, True)]
    assert [p.is_predicted for p in curve.points] == [False, True]


def test_a_variant_that_never_finished_has_a_stop_of_unknown_height() -> None:
    (stop,) = only([record(outcome=Outcome.HOST_OOM)]).stops
    assert stop.value is None


def test_skipped_lengths_are_neither_points_nor_stops() -> None:
    curve = only([record(length=512), record(length=1024, outcome=Outcome.SKIPPED)])
    assert len(curve.points) == 1
    assert curve.stops == ()


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.DEVICE_OOM, "memory"),
        (Outcome.HOST_OOM, "memory"),
        (Outcome.OVER_BUDGET, "budget"),
        (Outcome.TIMEOUT, "time"),
        (Outcome.KILLED, "other"),
        (Outcome.ERROR, "other"),
    ],
)
def test_stops_tell_what_ran_out(outcome: Outcome, kind: str) -> None:
    assert only([record(outcome=outcome)]).stops[0].kind == kind


def test_throughput_has_quartiles_only_where_there_is_a_spread() -> None:
    (point,) = only([record(samples_ms=[100.0, 200.0, 300.0])], "throughput").points
    assert point.lower is not None
    assert point.upper is not None
    assert point.lower < point.value < point.upper
    (single,) = only([record(samples_ms=[100.0])], "throughput").points
    assert (single.lower, single.upper) == (None, None)


def test_a_case_without_warm_steps_has_no_throughput() -> None:
    (group,) = group_records([record(samples_ms=())])
    assert curves(group, "throughput") == []
    assert len(curves(group, "memory")) == 1
