"""Options take figures from measurements where there are any, and say where they come from."""

import pytest

from reformer_bench.recommend import options_of
from reformer_bench.schema.record import Outcome
from tests.builders import record

PEAK, FLOPS = 1000, 6_000_000


def foretell(case):
    return PEAK, FLOPS


def _record(**changes):
    fields = {"peak": 2**30, "samples_ms": [100.0, 100.0], "length": 512, "suite": "s"}
    return record("a", **{**fields, **changes})


def test_without_measurements_costs_are_flops():
    (option,), unit = options_of([_record().case], [], foretell)
    assert unit == "FLOP"
    assert (option.peak_bytes, option.cost) == (PEAK, FLOPS)
    assert (option.peak_source, option.cost_source) == ("predicted", "predicted")


def test_a_measured_case_keeps_its_figures_whatever_its_names_and_seed():
    measured = _record()
    asked = measured.case.model_copy(update={"suite": "x", "variant": "b", "seed": 3})
    (option,), unit = options_of([asked], [measured], foretell)
    assert unit == "ms"
    assert (option.name, option.peak_bytes, option.cost) == ("b", measured.memory.peak_bytes, 100)
    assert (option.peak_source, option.cost_source) == ("measured", "measured")


@pytest.mark.parametrize("change", [{"length": 1024}, {"batch": 2}, {"optimizer": "adafactor"}])
def test_another_case_is_estimated_at_the_speed_measured(change):
    measured = _record()
    speed = (measured.timing.flops or FLOPS) / 100.0
    (option,), _ = options_of([measured.case.model_copy(update=change)], [measured], foretell)
    assert option.cost == pytest.approx(FLOPS / speed)
    assert (option.peak_source, option.cost_source) == ("predicted", "estimated")


def test_cases_out_of_time_measure_nothing():
    failed = _record().model_copy(update={"outcome": Outcome.TIMEOUT})
    _, unit = options_of([failed.case], [failed], foretell)
    assert unit == "FLOP"


@pytest.mark.parametrize("outcome", [Outcome.DEVICE_OOM, Outcome.HOST_OOM])
def test_cases_out_of_memory_are_marked_whatever_is_predicted(outcome):
    failed = _record(length=1024).model_copy(update={"outcome": outcome})
    (option,), unit = options_of([failed.case], [failed, _record()], foretell)
    assert option.ran_out
    assert unit == "ms"


def test_all_costs_have_one_unit():
    measured = _record()
    other = measured.case.model_copy(
        update={"model": measured.case.model.model_copy(update={"dtype": "bfloat16"})}
    )
    options, unit = options_of([measured.case, other], [measured], foretell)
    assert unit == "FLOP"
    assert [option.cost for option in options] == [FLOPS, FLOPS]
    assert [option.peak_source for option in options] == ["measured", "predicted"]


@pytest.mark.parametrize("change", [{"implementation": "transformers"}, {"workload": "forward"}])
def test_other_peoples_models_and_other_work_have_other_speeds(change):
    measured = _record()
    asked = measured.case.model_copy(update={"length": 2048})
    elsewhere = _record(**change)
    assert options_of([asked], [elsewhere], foretell)[1] == "FLOP"
    assert options_of([asked], [measured, elsewhere], foretell)[1] == "ms"


def test_a_gpus_speed_says_nothing_of_a_cpu():
    assert options_of([_record().case], [_record(device="cuda")], foretell)[1] == "FLOP"
