"""Suites: what a file may say, how it is found, and the one line that says what is wrong."""

from pathlib import Path

import pytest

from reformer_bench.schema.errors import InputError, validated
from reformer_bench.schema.suite import Suite, fields_of, find_suite, load_suite, shipped_suites

BASE = {
    "name": "mine",
    "description": "d",
    "lengths": "512..2K",
    "variants": {"r": {"preset": "reformer", "model": {"n_hashes": 2}}},
}


def make(**changes: object) -> Suite:
    return validated(Suite, {**BASE, **changes}, where="f.toml")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("512..2K", (512, 1024, 2048)),
        ([512, "1K", 777], (512, 777, 1024)),
        (64, (64,)),
        ("64,32,64", (32, 64)),
    ],
    ids=str,
)
def test_lengths_are_a_list_a_range_or_a_number(written, meant):
    assert make(lengths=written).lengths_on("cpu") == meant


def test_a_device_has_its_own_lengths_and_limits():
    suite = make(device={"cpu": {"lengths": [64], "case_timeout_s": 5}})
    assert suite.lengths_on("cpu") == (64,)
    assert suite.lengths_on("cuda") == (512, 1024, 2048)
    assert suite.on("cpu").case_timeout_s == 5
    assert suite.on("cuda").case_timeout_s == 600


def test_tokens_fix_the_product_of_batch_and_length():
    suite = make(tokens=2048)
    assert [suite.batches_at(length) for length in (512, 1024, 2048)] == [(4,), (2,), (1,)]
    with pytest.raises(InputError, match=r"tokens = 2048 is not a multiple of length 3000"):
        suite.batches_at(3000)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"model": {"n_hash": 3}},
            "f.toml: unknown key 'model.n_hash', did you mean 'model.n_hashes'",
        ),
        ({"n_hash": 3}, "f.toml: unknown key 'n_hash', did you mean 'model.n_hashes'?"),
        ({"lenghts": [1]}, "f.toml: unknown key 'lenghts', did you mean 'lengths'?"),
        ({"model": {"n_hashes": 0}}, "f.toml: model.n_hashes = 0: input should be greater"),
        ({"variants": {"a": {"preset": "reformr"}}}, "variants.a.preset = 'reformr': not a preset"),
        ({"variants": {"a": {"model": {"n_buckets": "x"}}}}, "variants.a.model.n_buckets = 'x'"),
        ({"variants": {}}, "f.toml: variants = {}"),
        ({"device": {"gpu": {}}}, "should be 'cpu' or 'cuda'"),
        ({"device": {"cpu": {"min_samples": 50}}}, "min_samples = 50 is more than max_samples"),
        ({"tokens": 4, "batches": 3}, "'batches' and 'tokens' exclude each other"),
        ({"batches": "1,0"}, "batches.1 = '0'"),
        ({"workloads": ["train"]}, "'train_step', 'forward', 'eval' or 'attention'"),
        ({"lengths": "512..x"}, "lengths = '512..x': 'x' is not a sequence length"),
        ({"baseline_variant": "x"}, "baseline_variant = 'x' is not a variant (allowed: "),
        ({"name": "no spaces"}, "name = 'no spaces'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_in_one_line_with_file_key_and_value(changes, line):
    with pytest.raises(InputError) as caught:
        make(**changes)
    text = str(caught.value)
    assert line in text
    assert "\n" not in text


def test_a_table_keeps_only_what_was_set_through_json_and_back():
    suite = make(model={"d_model": 64})
    again = Suite.model_validate(suite.model_dump(mode="json", exclude_unset=True))
    assert again == suite
    assert fields_of(again.model) == {"d_model": 64}


def test_shipped_suites_load_and_are_found_by_their_file_name():
    suites = shipped_suites()
    assert {"smoke", "seq-scaling"} <= {suite.name for suite in suites}
    for suite in suites:
        assert find_suite(suite.name) == suite


def test_the_suites_of_table_3_have_its_five_models_and_todays():
    for name in ("smoke", "seq-scaling"):
        assert list(find_suite(name).variants) == [
            "transformer",
            "reversible-transformer",
            "chunked-reversible-transformer",
            "lsh-transformer",
            "reformer",
            "flash-transformer",
        ]


def test_a_path_is_the_users_own_file(tmp_path: Path):
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\ndescription = "d"\nlengths = [8]\n[variants.a]\n')
    assert find_suite(str(path)).name == "own"


def test_files_that_cannot_be_read_say_why(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read \(No such file"):
        load_suite(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    path.write_text("name = \n")
    with pytest.raises(InputError, match=r"bad\.toml: is not TOML: .*line 1"):
        load_suite(path)


def test_an_unknown_name_lists_the_suites_and_the_nearest():
    with pytest.raises(InputError, match=r"'smok', did you mean 'smoke'\? \(allowed: .*smoke"):
        find_suite("smok")
