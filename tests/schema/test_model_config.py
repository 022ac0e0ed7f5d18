"""ModelConfig refuses what is impossible, and says which field."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reformer_bench.schema.case import Case
from reformer_bench.schema.model import PRESETS, Attention, ModelConfig, preset


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"attention": "lsh,foo"}, "attention"),
        ({"attention": ()}, "attention"),
        ({"attention": "sdpa", "shared_qk": True, "causal": False}, "shared_qk"),
        ({"n_heads": 3}, "n_heads"),
        ({"n_buckets": 7}, "n_buckets"),
        ({"n_buckets": (4, 5)}, "n_buckets"),
        ({"head_groups": 3}, "head_groups"),
        ({"dropout": 1.0}, "dropout"),
        ({"ff_chunks": 0}, "ff_chunks"),
        ({"axial_dims": (1, 2)}, "axial_dims"),
        ({"axial_shape": (2, 2)}, "axial_shape"),
        ({"positions": "none", "axial_shape": (2, 2)}, "axial_shape"),
        ({"parameter_offload": "cpu", "residual": "standard"}, "parameter_offload"),
        ({"residual": "standard", "merge_streams": "mean"}, "merge_streams"),
        ({"dtype": "float16"}, "dtype"),
        ({"hashes": 2}, "hashes"),
    ],
    ids=str,
)
def test_an_impossible_combination_names_its_field(fields, named):
    with pytest.raises(ValidationError, match=named):
        ModelConfig(**fields)


def test_frozen():
    with pytest.raises(ValidationError):
        ModelConfig().d_ff = 3


def test_a_pattern_repeats_over_the_layers():
    config = ModelConfig(attention="lsh,local,local,local", n_layers=6)
    kinds = [config.kind(i) for i in range(6)]
    assert kinds == [Attention.LSH, *[Attention.LOCAL] * 3, Attention.LSH, Attention.LOCAL]
    assert config.shares_qk(0)
    assert not config.shares_qk(1)


@given(max_length=st.integers(1, 2**21), d_model=st.integers(1, 64).map(lambda n: 4 * n))
def test_axial_tables_cover_every_position_with_few_rows(max_length, d_model):
    config = ModelConfig(max_length=max_length, d_model=d_model, n_heads=4)
    (rows1, width1), (rows2, width2) = config.position_tables()
    assert rows1 * rows2 >= max_length
    assert width1 + width2 == d_model
    assert rows1 + rows2 <= 4 * math.isqrt(max_length) + 4


def test_presets_are_the_models_of_table_3_and_todays():
    assert list(PRESETS) == [
        "transformer",
        "reversible-transformer",
        "chunked-reversible-transformer",
        "lsh-transformer",
        "reformer",
        "flash-transformer",
    ]
    for name in PRESETS:
        preset(name)
    with pytest.raises(ValueError, match="allowed: transformer"):
        preset("former")


def test_a_case_id_changes_with_anything_in_it_and_with_nothing_else():
    case = Case(suite="s", variant="v", model=ModelConfig(), length=512)
    assert case.id == Case(suite="s", variant="v", model=ModelConfig(), length=512).id
    for changed in (
        {"length": 513},
        {"seed": 1},
        {"model": ModelConfig(n_hashes=5)},
        {"workload": "forward"},
    ):
        assert case.model_copy(update=changed).id != case.id
