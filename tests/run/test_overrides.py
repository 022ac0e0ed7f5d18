"""Overrides: what the command line changes, and how it says what it cannot."""

import pytest

from reformer_bench.run.overrides import (
    suite_of_models,
    with_case_timeout,
    with_lengths,
    with_settings,
    with_variants,
)
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.suite import fields_of
from tests.builders import suite


def test_model_settings_go_above_every_preset():
    changed = with_settings(suite(), ["model.ff_chunks=2", "model.attention=lsh,local"])
    for variant in changed.variants.values():
        assert fields_of(variant.model) == {"ff_chunks": 2, "attention": ["lsh", "local"]}


def test_suite_settings_and_their_toml_values():
    changed = with_settings(
        suite(), ["batches=1,2", "seed=7", "optimizer=adafactor", "device.cpu.sample_time_s=0.5"]
    )
    assert (changed.batches, changed.seed, changed.optimizer) == ((1, 2), 7, "adafactor")
    assert changed.on("cpu").sample_time_s == 0.5


def test_one_variant_can_be_changed_alone():
    changed = with_settings(suite(), ["variants.reformer.model.n_hashes=8"])
    assert fields_of(changed.variants["reformer"].model) == {"n_hashes": 8}
    assert fields_of(changed.variants["transformer"].model) == {}


def test_batches_and_tokens_replace_each_other():
    fixed = with_settings(suite(batches=[2]), ["tokens=64"])
    assert (fixed.tokens, fixed.batches) == (64, None)
    assert with_settings(fixed, ["batches=3"]).tokens is None


@pytest.mark.parametrize("setting", ["lengths=8,16", "lengths=8..16"])
def test_lengths_replace_the_devices_own(setting):
    first = suite(device={"cpu": {"lengths": [1024]}})
    assert with_settings(first, [setting]).lengths_on("cpu") == (8, 16)
    assert with_lengths(first, "8..16").lengths_on("cpu") == (8, 16)


def test_variants_keep_the_suites_order():
    three = suite(variants={"c": {}, "a": {}, "b": {}})
    assert list(with_variants(three, ["b", " c"]).variants) == ["c", "b"]


def test_the_case_timeout_holds_on_every_device():
    changed = with_case_timeout(suite(device={"cpu": {"max_samples": 3}}), 7)
    assert changed.on("cpu").case_timeout_s == changed.on("cuda").case_timeout_s == 7
    assert changed.on("cpu").max_samples == 3


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("x", "--set: 'x' is not key=value"),
        ("=3", "--set: '=3' is not key=value"),
        ("model.n_hashes=abc", "--set: model.n_hashes = 'abc': input should be a valid integer"),
        ("model.nhashes=3", "unknown key 'model.nhashes', did you mean 'model.n_hashes'?"),
        ("n_hash=3", "--set: unknown key 'n_hash', did you mean 'model.n_hashes'?"),
        ("case_timeout_s=3", "did you mean 'device.cpu.case_timeout_s'?"),
        ("model.attention=lhs", "'local' or 'lsh', did you mean 'lsh'?"),
        ("variants.reformer.preset=refrmer", "not a preset, did you mean 'reformer'?"),
        ("seed=x", "--set: seed = 'x'"),
        ("sed=1", "--set: unknown key 'sed', did you mean 'seed'?"),
        ("variants.reformr.model.n_hashes=3", "no variant 'reformr', did you mean 'reformer'?"),
        ("variants.reformer.model.n_hashes=0", "--set: variants.reformer.model.n_hashes = 0"),
        ("name.x=1", "--set: 'name.x' is no key: 'name' is not a table"),
        ("optimizer=adm", "--set: optimizer = 'adm': not an optimizer, did you mean 'Adam'?"),
    ],
    ids=lambda text: text.partition(":")[0],
)
def test_a_wrong_setting_names_the_key_as_written(setting, line):
    with pytest.raises(InputError) as caught:
        with_settings(suite(), [setting])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_lengths_variants_and_timeouts_name_their_option():
    with pytest.raises(InputError, match="--seq-len: '5x' is not a sequence length"):
        with_lengths(suite(), "5x")
    with pytest.raises(InputError, match="--variants: there is no variant 'x'"):
        with_variants(suite(), ["x"])
    with pytest.raises(InputError, match="--variants: names at least one of: reformer"):
        with_variants(suite(), [""])
    with pytest.raises(InputError, match=r"--case-timeout: case_timeout_s = -1"):
        with_case_timeout(suite(), -1)


def test_a_baseline_goes_with_its_variant():
    both = with_settings(suite(), ["baseline_variant=reformer"])
    assert with_variants(both, ["reformer"]).baseline_variant == "reformer"
    assert with_variants(both, ["transformer"]).baseline_variant is None


@pytest.mark.parametrize(
    ("models", "name"),
    [
        (["hf:gpt2"], "gpt2"),
        (["hf:gpt2", "reformer"], "gpt2-and-1-more"),
        (["hf:gpt2", "hf:gpt2", "hf:bert"], "gpt2-and-2-more"),
    ],
)
def test_models_of_the_command_line_name_their_suite(models, name):
    assert suite_of_models(models, seq_len="64").name == name
