"""Expansion: which cases a suite has on a device, and in which order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.run.expand import check_device, expand, variant_model
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.suite import Suite
from tests.builders import suite

suites = st.builds(
    suite,
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    workloads=st.lists(
        st.sampled_from(["train_step", "forward", "attention"]), min_size=1, max_size=3
    ),
    variants=st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.fixed_dictionaries(
            {
                "preset": st.sampled_from(["reformer", "transformer"]),
                "model": st.fixed_dictionaries({}, optional={"n_hashes": st.integers(1, 8)}),
            }
        ),
        min_size=1,
    ),
    seed=st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(suites)
def test_every_combination_is_there_once_and_ids_tell_them_apart(made: Suite):
    cases = expand(made, "cpu")
    combinations = {(c.variant, c.workload, c.batch, c.length) for c in cases}
    assert len({case.id for case in cases}) == len(cases) == len(combinations)
    expected = (len(made.variants) * len(set(made.workloads)) * len(set(made.batches or ()))) * len(
        set(made.lengths)
    )
    assert len(cases) == expected


@settings(max_examples=60, deadline=None)
@given(suites)
def test_shortest_first_and_all_variants_of_a_length_before_the_next(made: Suite):
    cases = expand(made, "cpu")
    lengths = [case.length for case in cases]
    assert lengths == sorted(lengths)
    n_variants = len(made.variants)
    for start in range(0, len(cases), n_variants):
        group = cases[start : start + n_variants]
        assert [case.variant for case in group] == list(made.variants)
        assert len({(case.length, case.workload, case.batch) for case in group}) == 1


@settings(max_examples=30, deadline=None)
@given(suites)
def test_expanding_twice_gives_the_same_cases_and_another_seed_others(made: Suite):
    first = expand(made, "cpu")
    assert [case.id for case in expand(made, "cpu")] == [case.id for case in first]
    other = expand(made.model_copy(update={"seed": made.seed + 1}), "cpu")
    assert not {case.id for case in other} & {case.id for case in first}


def test_a_model_is_put_together_from_suite_device_preset_and_variant():
    made = suite(
        model={"d_model": 16, "n_heads": 2, "ff_chunks": 3, "n_hashes": 1},
        device={"cpu": {"model": {"d_model": 32, "n_hashes": 2}}},
        variants={"r": {"preset": "reformer", "model": {"loss_chunks": 5, "n_hashes": 3}}},
    )
    (cpu, _), (cuda, _) = variant_model(made, "r", "cpu"), variant_model(made, "r", "cuda")
    assert (cpu.d_model, cuda.d_model) == (32, 16)
    assert cpu.ff_chunks == 16, "the preset is above the suite's own model"
    assert (cpu.loss_chunks, cpu.n_hashes) == (5, 3), "the variant is above its preset"


def test_only_a_train_step_has_an_optimizer():
    cases = expand(suite(workloads=["train_step", "forward"], optimizer="adafactor"), "cpu")
    assert {(c.workload, c.optimizer) for c in cases} == {
        ("train_step", "adafactor"),
        ("forward", "none"),
    }


def test_an_impossible_model_names_variant_and_field():
    made = suite(variants={"odd": {"model": {"n_heads": 3}}})
    with pytest.raises(InputError, match=r"suite tiny, variant odd: n_heads = 3 must divide"):
        expand(made, "cpu")


def test_a_length_beyond_max_length_names_variant_and_field():
    made = suite(lengths=[64, 128], model={"max_length": 100})
    with pytest.raises(InputError, match=r"variant reformer: length 128 is more than model\.max"):
        expand(made, "cpu")


def test_tokens_that_do_not_divide_are_said():
    with pytest.raises(InputError, match="suite tiny: tokens = 100 is not a multiple of length 32"):
        expand(suite(tokens=100), "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "CPU"])
def test_a_device_of_no_known_name_is_refused(name):
    with pytest.raises(InputError, match="is not one of auto, cpu, cuda, cuda:N"):
        check_device(name)
