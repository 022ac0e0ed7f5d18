"""Points, stops and coincidences of a curve say what was measured and nothing else."""

import pytest

from reformer_bench.report.groups import group_records
from reformer_bench.report.plots.curves import Curve, Quantity, curve_of, overlaps
from reformer_bench.report.plots.varied import LENGTH, all_series
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB, MIB
from tests.builders import record


def curves(records: list[Record], quantity: Quantity = "memory") -> list[Curve]:
    (group,) = group_records(records)
    return [
        curve_of(one.name, one.label, one.records, LENGTH.of, quantity)
        for one in all_series(group, [])
    ]


def only(records: list[Record], quantity: Quantity = "memory") -> Curve:
    (found,) = curves(records, quantity)
    return found


def test_measured_points_are_the_allocators_peak() -> None:
    found = only([record(length=1024, peak=150 * MIB), record(length=512, peak=100 * MIB)])
    assert [(p.x, p.value, p.is_predicted) for p in found.points] == [
        (512, 100 * MIB, False),
        (1024, 150 * MIB, False),
    ]


def test_a_stop_without_a_figure_has_no_height() -> None:
    records = [
        record(length=512, peak=100 * MIB),
        record(length=1024, peak=400 * MIB),
        record(length=2048, outcome=Outcome.DEVICE_OOM),
    ]
    (stop,) = only(records).stops
    assert (stop.x, stop.kind, stop.value) == (2048, "memory", None)


def test_a_stop_with_a_prediction_is_at_it() -> None:
    records = [
        record(length=512),
        record(length=1024, outcome=Outcome.OVER_BUDGET, predicted=23 * GIB),
    ]
    found = only(records)
    assert [s.value for s in found.stops] == [23 * GIB]
    assert [p.is_predicted for p in found.points] == [False, True]


def test_skipped_lengths_are_neither_points_nor_stops() -> None:
    found = only([record(length=512), record(length=1024, outcome=Outcome.SKIPPED)])
    assert len(found.points) == 1
    assert found.stops == ()


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
    assert only([record(samples_ms=())], "throughput").points == ()
    assert len(only([record(samples_ms=())]).points) == 1


def test_activations_are_the_peak_without_what_the_parameters_take() -> None:
    (point,) = only([record(peak=400 * MIB)], "activations").points
    assert point.value == (400 - 4 * 30) * MIB


def test_a_curve_on_another_is_told_with_how_near_it_is() -> None:
    def at(name: str, factor: float) -> list[Record]:
        return [record(name, n, peak=int(factor * n * 10**5)) for n in (512, 1024)]

    found = overlaps(curves([*at("a", 1.0), *at("same", 1.0), *at("close", 1.01), *at("far", 1.5)]))
    assert [(h.curve.name, h.under.name, h.is_same) for h in found] == [
        ("same", "a", True),
        ("close", "a", False),
    ]


def test_curves_that_share_no_size_hide_nothing() -> None:
    assert overlaps(curves([record("a", 512), record("b", 1024)])) == []


def test_curves_that_cross_hide_nothing() -> None:
    crossing = [record("a", 512, peak=10**8), record("a", 1024, peak=2 * 10**8)]
    crossing += [record("b", 512, peak=10**8), record("b", 1024, peak=10**8)]
    assert overlaps(curves(crossing)) == []
