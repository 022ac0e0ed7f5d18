"""The suites of the paper's claims: they load, expand on both devices, and name every claim's."""

import pytest

from reformer_bench.claims.paper import CLAIMS
from reformer_bench.run.expand import expand
from reformer_bench.schema.errors import InputError, validated
from reformer_bench.schema.model import Attention, Residual
from reformer_bench.schema.suite import Suite, find_suite, parts_of, suite_folder

PARTS = parts_of(find_suite("paper"))
OWN = [*PARTS, find_suite("ablation")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("suite", OWN, ids=lambda suite: suite.name)
def test_each_expands_on_both_devices(suite, device):
    assert expand(suite, device)


def test_every_suite_that_a_claim_names_exists_and_is_in_the_paper_suite_or_is_million():
    named = {name for claim in CLAIMS for name in claim.suites}
    assert named == {part.name for part in PARTS} | {"million"}
    assert find_suite("million").name == "million"


@pytest.mark.parametrize("suite", PARTS, ids=lambda suite: suite.name)
def test_each_says_in_a_comment_what_of_the_paper_it_stands_for(suite):
    assert suite.claim
    first = (suite_folder() / f"{suite.name}.toml").read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith("# ")


def test_on_a_cpu_no_part_takes_over_ten_minutes_and_all_of_them_at_most_45():
    limits = [part.on("cpu").total_time_s for part in PARTS]
    assert all(limit is not None and limit <= 600 for limit in limits)
    assert sum(limit or 0 for limit in limits) <= 44 * 60
    for device in ("cpu", "cuda"):
        expected = sum(part.expected_minutes[device] for part in PARTS)
        assert find_suite("paper").expected_minutes[device] == pytest.approx(expected, abs=1)


def test_the_ablation_has_every_combination():
    found = {
        (case.model.attention, case.model.residual, case.model.ff_chunks > 1)
        for case in expand(find_suite("ablation"), "cpu")
    }
    assert len(found) == len(Attention) * len(Residual) * 2


def test_a_suite_has_variants_or_includes():
    base = {"name": "a", "description": "d"}
    with pytest.raises(InputError, match="'lengths' is missing"):
        validated(Suite, base, where="f.toml")
    both = {**base, "includes": ["smoke"], "lengths": [8]}
    with pytest.raises(InputError, match="'includes' and 'lengths' exclude each other"):
        validated(Suite, both, where="f.toml")


def test_suites_of_suites_of_suites_are_refused():
    nested = Suite(name="a", description="d", includes=("paper",))
    with pytest.raises(InputError, match="includes 'paper', which includes others itself"):
        parts_of(nested)
