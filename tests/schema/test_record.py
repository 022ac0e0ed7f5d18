"""What a record says about itself, and the published JSON Schema of records."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

import reformer_bench.schema
from reformer_bench.schema.prediction import NotPredicted, Prediction
from reformer_bench.schema.record import (
    PREDICTED_SOURCE,
    AllocatorMemory,
    Breakdown,
    Load,
    Memory,
    Outcome,
    PhasePeak,
    Record,
    StepSample,
    Timing,
    json_schema,
    latest_of_each,
    utc_now,
)
from tests.builders import case, environment, record_of

PUBLISHED = Path(reformer_bench.schema.__file__).parent / "record.schema.json"
BREAKDOWN = Breakdown(
    parameters_bytes=10,
    gradients_bytes=20,
    optimizer_bytes=30,
    activations_bytes=100,
    temporaries_bytes=7,
)


def allocator(source="cpu-allocator-events", breakdown=BREAKDOWN, phase="backward", warm=None):
    peaks = {"build": 10, "forward": 140, "backward": 167, "optimizer": 90, **(warm or {})}
    parts = tuple(PhasePeak(phase=name, allocated_bytes=size) for name, size in peaks.items())
    return AllocatorMemory(
        source=source,
        cold=parts[:1],
        warm=parts[1:],
        breakdown=breakdown,
        breakdown_phase=None if breakdown is None else phase,
    )


def measured(outcome=Outcome.OK, **changes) -> Record:
    memory = Memory(allocator=allocator(**changes))
    return record_of(outcome=outcome).model_copy(update={"memory": memory})


def timed(cold_ms: float, *warm_ms: float, outcome=Outcome.OK) -> Record:
    timing = Timing(
        build_ms=1.0,
        cold=StepSample(total_ms=cold_ms),
        warm=tuple(StepSample(total_ms=ms) for ms in warm_ms),
        n_warmup=0,
        flops=12,
    )
    return record_of(outcome=outcome).model_copy(update={"timing": timing})


@pytest.mark.parametrize(
    ("fact", "outcomes"),
    [
        ("is_out_of_memory", {"device-oom", "host-oom"}),
        ("is_too_large", {"device-oom", "host-oom", "over-budget"}),
        ("is_limit", {"device-oom", "host-oom", "over-budget", "timeout", "killed"}),
        ("is_stop", {"device-oom", "host-oom", "over-budget", "timeout", "killed", "error"}),
    ],
)
def test_each_fact_holds_for_a_set_of_outcomes(fact, outcomes):
    assert {str(outcome) for outcome in Outcome if getattr(outcome, fact)} == outcomes


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_an_ok_case_finished(outcome):
    assert record_of(outcome=outcome).finished is (outcome is Outcome.OK)


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize(
    ("source", "predicted"),
    [("cpu-allocator-events", False), ("cuda-allocator", False), (PREDICTED_SOURCE, True)],
)
def test_figures_are_measured_or_predicted_by_their_source_whatever_the_outcome(
    source, predicted, outcome
):
    one = measured(outcome, source=source)
    assert (one.is_predicted, one.is_measured) == (predicted, not predicted)


def test_without_an_allocator_nothing_was_measured_or_predicted():
    one = record_of()
    assert not one.is_predicted
    assert not one.is_measured
    assert one.breakdown is one.fixed_bytes is one.activation_bytes is one.memory.peak_bytes is None


def test_peaks_are_the_highest_of_all_phases():
    found = allocator()
    assert found.peak_allocated_bytes == 167
    assert found.peak_reserved_bytes is None
    reserved = PhasePeak(phase="forward", allocated_bytes=1, reserved_bytes=512)
    assert found.model_copy(update={"cold": (reserved,)}).peak_reserved_bytes == 512


def test_fixed_bytes_are_parameters_gradients_and_state_and_all_five_are_the_peak():
    assert measured().fixed_bytes == 60
    assert BREAKDOWN.total_bytes == 167
    assert measured(breakdown=None).fixed_bytes is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 107),
        ({"phase": "forward"}, 107),
        # The optimizer's peak is no matter of the length: the backward phase's counts.
        ({"phase": "optimizer", "warm": {"backward": 150}}, 90),
        ({"phase": "build", "warm": {"backward": 60, "forward": 30}}, None),
        ({"phase": "build", "warm": {"backward": 61, "forward": 30}}, 1),
        ({"breakdown": None}, None),
        ({"outcome": Outcome.DEVICE_OOM}, None),
    ],
    ids=str,
)
def test_activation_bytes_are_the_peak_of_the_passes_less_what_is_fixed(changes, expected):
    assert measured(**changes).activation_bytes == expected


def test_without_a_warm_step_the_cold_ones_phases_count():
    found = allocator(phase="optimizer")
    cold_only = found.model_copy(update={"cold": found.cold + found.warm, "warm": ()})
    one = record_of().model_copy(update={"memory": Memory(allocator=cold_only)})
    assert one.activation_bytes == 167 - 60


def test_the_step_time_is_the_median_of_the_warm_samples_in_order():
    one = timed(50.0, 3.0, 1.0, 2.0, 10.0)
    assert one.step_samples_ms == (3.0, 1.0, 2.0, 10.0)
    assert one.step_ms == 2.5
    assert one.flops == 12
    assert one.cold_rate is None


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.OK])
def test_a_case_that_did_not_finish_has_samples_and_no_step_time(outcome):
    assert timed(50.0, 3.0, outcome=outcome).step_samples_ms == (3.0,)
    assert timed(50.0, 3.0, outcome=outcome).step_ms is None
    assert timed(50.0, outcome=outcome).cold_rate is None


def test_a_case_with_a_cold_step_only_has_its_throughput_and_no_step_time():
    one = timed(50.0)
    assert one.step_ms is None
    assert one.step_samples_ms == ()
    assert one.cold_rate == pytest.approx(one.case.tokens / 0.05)


def test_without_timing_there_is_no_time():
    one = record_of(outcome=Outcome.TIMEOUT)
    assert one.step_samples_ms == ()
    assert one.step_ms is one.flops is one.cold_rate is None


@pytest.mark.parametrize(
    ("device", "other", "stolen", "missing"),
    [
        ("cpu", 0.2, 0.0, 0.2),
        ("cpu", 0.2, 0.1, 0.3),
        # One of the two processors serves a CUDA case.
        ("cuda", 0.9, 0.0, 0.0),
        ("cuda", 1.25, 0.0, 0.25),
    ],
)
def test_a_quarter_of_a_core_taken_by_others_disturbs(device, other, stolen, missing):
    load = Load(own_cores=1.0, other_cores=other, stolen_cores=stolen)
    here = environment(device_kind=device)
    assert load.missing_cores(here) == pytest.approx(missing)
    one = record_of().model_copy(update={"load": load, "environment": here})
    assert one.was_disturbed is (missing >= 0.25)
    assert not record_of().was_disturbed


def test_a_record_that_nothing_was_measured_for_says_so():
    before = datetime.fromisoformat(utc_now())
    one = Record.not_measured(case(), Outcome.SKIPPED, "too long", environment())
    assert (one.case_id, one.outcome, one.message) == (case().id, Outcome.SKIPPED, "too long")
    assert (one.memory, one.timing, one.wall_ms) == (Memory(), None, 0.0)
    assert before <= datetime.fromisoformat(one.started_at) <= before + timedelta(minutes=5)
    memory = Memory(predicted_peak_bytes=3)
    given = Record.not_measured(
        case(), Outcome.KILLED, None, environment(), started_at="now", wall_ms=2.0, memory=memory
    )
    assert (given.started_at, given.wall_ms, given.memory) == ("now", 2.0, memory)


def test_what_was_predicted_is_added_and_the_measured_stays():
    known = Prediction(allocator(source=PREDICTED_SOURCE), flops=3, places={"a": {"b": 1}})
    both = known.added_to(Memory(allocator=allocator(warm={"backward": 900})))
    assert (both.peak_bytes, both.predicted_peak_bytes) == (900, 167)
    assert both.predicted_places == {"a": {"b": 1}}
    assert NotPredicted("no").added_to(both) is both


def test_the_last_record_of_a_case_stands_where_its_first_stood():
    first, second = record_of(case(length=32)), record_of(case(length=64))
    again = first.model_copy(update={"attempt": 2})
    assert latest_of_each([first, second, again]) == [again, second]


def test_a_record_can_not_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        record_of().attempt = 2


def test_the_published_schema_is_up_to_date():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_records_of_every_outcome_keep_to_it(outcome):
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(record_of(outcome=outcome).model_dump_json()), schema)


def test_a_record_with_a_key_of_its_own_does_not():
    data = json.loads(record_of().model_dump_json()) | {"peak": 1}
    with pytest.raises(jsonschema.ValidationError, match="peak"):
        jsonschema.validate(data, json_schema())
