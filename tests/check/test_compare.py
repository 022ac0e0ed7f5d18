"""Comparison of two runs: each case gets the one status that its records call for."""

from __future__ import annotations

import random

import pytest

from reformer_bench.check.compare import Status, compare, foresee
from reformer_bench.schema.record import Memory, Outcome
from reformer_bench.schema.tolerances import Metric, Tolerances
from reformer_bench.schema.units import MIB
from tests.builders import record

PEAK = 200 * MIB


def status(old, new, **options) -> Status:
    (found,) = compare([old], [new], **options).cases
    return found.status


def grown(share: float):
    return record(peak=int(PEAK * (1 + share)))


def with_memory(found, **parts):
    return found.model_copy(update={"memory": found.memory.model_copy(update=parts)})


def with_environment(found, **fields):
    changed = found.environment.model_copy(update=fields)
    return found.model_copy(update={"environment": changed})


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, Status.OK),
        (0.004, Status.OK),
        (0.006, Status.REGRESSION),
        (-0.004, Status.OK),
        (-0.006, Status.IMPROVEMENT),
    ],
)
def test_growth_beyond_the_tolerance_is_a_regression(share, expected):
    assert status(record(peak=PEAK), grown(share)) is expected


def test_a_phase_that_grew_below_the_peak_is_a_regression():
    old = record(peak=PEAK)
    allocator = old.memory.allocator
    warm = tuple(
        part.model_copy(update={"allocated_bytes": 2 * part.allocated_bytes})
        if part.phase == "optimizer"
        else part
        for part in allocator.warm
    )
    new = with_memory(old, allocator=allocator.model_copy(update={"warm": warm}))
    (found,) = compare([old], [new]).cases
    (change,) = found.regressions
    assert found.status is Status.REGRESSION
    assert (change.step, change.phase) == ("warm", "optimizer")


def test_the_whole_peak_is_told_before_its_phases():
    (found,) = compare([record(peak=PEAK)], [grown(0.1)]).cases
    assert found.regressions[0].phase is None
    assert len(found.regressions) == 9


def test_a_predicted_peak_is_compared_as_well():
    old = record(peak=PEAK, predicted=PEAK)
    (found,) = compare([old], [with_memory(old, predicted_peak_bytes=2 * PEAK)]).cases
    (change,) = found.regressions
    assert change.metric is Metric.PREDICTED


@pytest.mark.parametrize("outcome", [Outcome.DEVICE_OOM, Outcome.HOST_OOM, Outcome.OVER_BUDGET])
def test_a_case_that_fits_no_longer_or_again_is_said(outcome):
    fits, not_so = record(), record(outcome=outcome)
    assert status(fits, not_so) is Status.NOW_OUT_OF_MEMORY
    assert status(not_so, fits) is Status.NOW_FITS
    assert status(not_so, not_so) is Status.NOT_MEASURED


@pytest.mark.parametrize(
    "outcome", [Outcome.ERROR, Outcome.KILLED, Outcome.TIMEOUT, Outcome.SKIPPED]
)
def test_a_case_that_ends_otherwise_has_nothing_to_compare(outcome):
    assert status(record(), record(outcome=outcome)) is Status.NOW_FAILS
    assert status(record(outcome=outcome), record()) is Status.NOW_MEASURED
    assert status(record(outcome=outcome), record(outcome=outcome)) is Status.NOT_MEASURED
    assert status(record(outcome=outcome), record(outcome=Outcome.HOST_OOM)) is Status.NOT_MEASURED


FIELDS = {"torch_version": "2.14.0", "torch_threads": 8, "device_kind": "cuda"}


@pytest.mark.parametrize("field", FIELDS)
def test_what_forbids_the_comparison_is_foreseen_from_environment_and_cases(field):
    old = [record(peak=PEAK), record("transformer", peak=PEAK)]
    here = old[0].environment.model_copy(update={field: FIELDS[field]})
    cases = [*(one.case for one in old), record("flash-transformer").case]
    foreseen = foresee(old, cases, here)
    assert [(c.case.variant, c.status) for c in foreseen.cases] == [
        ("reformer", Status.NOT_COMPARABLE),
        ("transformer", Status.NOT_COMPARABLE),
    ]
    assert {d.field for c in foreseen.cases for d in c.differs} == {f"env.{field}"}
    accepted = foresee(old, cases, here, frozenset({f"env.{field}"}))
    assert {c.status for c in accepted.cases} == {Status.NOT_MEASURED}


def test_nothing_is_foreseen_where_all_may_be_compared_and_a_changed_model_alone_where_it_is_one():
    old = [record(peak=PEAK), record("transformer", peak=PEAK)]
    here, cases = old[0].environment, [one.case for one in old]
    assert not foresee(old, cases, here).having(Status.NOT_COMPARABLE)
    changed = [record(peak=PEAK, model={"n_hashes": 8}).case, cases[1]]
    (found,) = foresee(old, changed, here).having(Status.NOT_COMPARABLE)
    assert [d.field for d in found.differs] == ["case.model.n_hashes"]


def test_missing_and_new_cases_are_named():
    kept, gone, added = record(), record("transformer"), record(length=2048)
    comparison = compare([kept, gone], [added, kept])
    assert [(c.case.variant, c.case.length, c.status) for c in comparison.cases] == [
        ("reformer", 2048, Status.NEW),
        ("reformer", 1024, Status.OK),
        ("transformer", 1024, Status.MISSING),
    ]


def test_a_case_without_a_figure_in_common_is_missing():
    old = record()
    assert status(old, old.model_copy(update={"memory": Memory()})) is Status.MISSING


@pytest.mark.parametrize("field", ["torch_version", "torch_threads", "device_kind"])
def test_what_decides_exact_bytes_forbids_the_comparison(field):
    other = {"torch_version": "2.14.0", "torch_threads": 8, "device_kind": "cuda"}[field]
    new = with_environment(grown(0.5), **{field: other})
    (found,) = compare([record(peak=PEAK)], [new]).cases
    assert found.status is Status.NOT_COMPARABLE
    assert [d.field for d in found.differs] == [f"env.{field}"]
    assert not any(change.metric.is_exact for change in found.changes)


@pytest.mark.parametrize(
    ("dtype", "comparable"), [("float32", True), ("float64", True), ("bfloat16", False)]
)
def test_another_instruction_set_forbids_comparing_bfloat16_alone(dtype, comparable):
    old = record(peak=PEAK)
    model = old.case.model.model_copy(update={"dtype": dtype})
    old = old.model_copy(update={"case": old.case.model_copy(update={"model": model})})
    new = with_environment(old, instruction_set="AVX2, oneDNN AVX2")
    (found,) = compare([old], [new]).cases
    assert (found.status is not Status.NOT_COMPARABLE) == comparable


@pytest.mark.parametrize(
    "fields",
    [
        {"hostname_hash": "other"},
        {"commit": "abc"},
        {"package_version": "9"},
        {"cpu_model": "another", "cpu_count": 64, "host_memory_bytes": 1},
        {"os": "Linux 7", "python_version": "3.14"},
    ],
)
def test_exact_bytes_are_compared_between_machines(fields):
    new = with_environment(grown(0.5), **fields)
    assert status(record(peak=PEAK), new) is Status.REGRESSION


@pytest.mark.parametrize("field", ["driver_version", "device_name", "allocator_settings"])
def test_on_cuda_device_driver_and_allocator_settings_count_but_not_for_predictions(field):
    old = record(peak=PEAK, predicted=PEAK, device="cuda")
    (found,) = compare([old], [with_environment(old, **{field: "another"})]).cases
    assert found.status is Status.NOT_COMPARABLE
    assert [d.field for d in found.differs] == [f"env.{field}"]
    assert {c.metric for c in found.changes if c.metric.is_exact} == {Metric.PREDICTED}


@pytest.mark.parametrize("allowed", ["env.torch", "env.torch_version", "env"])
def test_a_difference_can_be_accepted(allowed):
    new = with_environment(grown(0.5), torch_version="2.14.0")
    options = {"allowed": frozenset({allowed})}
    assert status(record(peak=PEAK), new, **options) is Status.REGRESSION


def test_inexact_figures_are_passed_over_between_different_machines_and_that_is_said():
    old = record(peak=PEAK)
    host = old.memory.host.model_copy(update={"peak_bytes": 10 * PEAK})
    new = with_environment(with_memory(old, host=host), cpu_count=64)
    (found,) = compare([old], [new]).cases
    assert found.status is Status.OK
    assert {metric for metric, _ in found.not_compared} == {Metric.RESIDENT, Metric.TIME}
    assert status(old, with_memory(old, host=host)) is Status.REGRESSION


def test_another_model_under_the_same_name_is_not_comparable():
    old, new = record(peak=PEAK), record(peak=PEAK, model={"n_hashes": 8})
    (found,) = compare([old], [new]).cases
    assert found.status is Status.NOT_COMPARABLE
    assert [str(d) for d in found.differs] == ["case.model.n_hashes: 4 then, 8 now"]


def samples(middle: float, seed: int) -> list[float]:
    noise = random.Random(seed)
    return [middle * noise.lognormvariate(0, 0.05) for _ in range(12)]


def test_time_is_a_regression_only_where_it_is_gated_and_no_chance():
    old = record(samples_ms=samples(100, 1))
    slow, noisy = record(samples_ms=samples(150, 2)), record(samples_ms=[100, 101, 400, 410])
    gated = {"tolerances": Tolerances().with_options(["time=25%"])}
    assert status(old, slow) is Status.OK
    assert status(old, slow, **gated) is Status.REGRESSION
    assert status(old, noisy, **gated) is Status.OK
    assert status(old, record(samples_ms=samples(110, 3)), **gated) is Status.OK
    assert status(slow, old, **gated) is Status.IMPROVEMENT


def test_what_grew_is_told_largest_first():
    old = record(peak=PEAK)
    breakdown = old.memory.allocator.breakdown
    changed = breakdown.model_copy(
        update={
            "activations_bytes": breakdown.activations_bytes + 8 * MIB,
            "temporaries_bytes": breakdown.temporaries_bytes + 9 * MIB,
            "gradients_bytes": breakdown.gradients_bytes - MIB,
        }
    )
    new = with_memory(old, allocator=old.memory.allocator.model_copy(update={"breakdown": changed}))
    (found,) = compare([old], [new]).cases
    assert [(g.kind, g.bytes) for g in found.growths] == [
        ("temporaries", 9 * MIB),
        ("activations", 8 * MIB),
    ]


def test_places_tell_which_part_of_the_model_grew():
    place = "layers.1.feed_forward"
    old = with_memory(record(), predicted_places={place: {"activations": 10}, "": {"gradients": 1}})
    new = with_memory(
        record(), predicted_places={place: {"activations": 30}, "layers.0.attention": {"x": 5}}
    )
    (found,) = compare([old], [new]).cases
    assert [(g.place, g.kind, g.bytes) for g in found.place_growths] == [
        (place, "activations", 20),
        ("layers.0.attention", "x", 5),
    ]


def test_the_worst_comes_first():
    old = [record(v, peak=PEAK) for v in ("reformer", "transformer", "lsh-transformer")]
    new = [
        record("reformer", peak=PEAK),
        record("transformer", peak=int(1.1 * PEAK)),
        record("lsh-transformer", peak=2 * PEAK),
    ]
    worst = [c.case.variant for c in compare(old, new).worst_first]
    assert worst == ["lsh-transformer", "transformer", "reformer"]
