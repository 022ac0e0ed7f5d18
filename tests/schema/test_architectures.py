"""The suites of architectures that others wrote."""

import pytest
from click.testing import CliRunner

from reformer_bench.cli.run import run
from reformer_bench.report.accuracy import peaks
from reformer_bench.schema.suite import find_suite
from reformer_bench.schema.target import TargetKind
from reformer_bench.store import load_run


def test_there_are_many_and_none_is_from_here():
    suites = [find_suite(name) for name in ("architectures", "architectures-vision")]
    variants = {name: v for suite in suites for name, v in suite.variants.items()}
    assert len(variants) == sum(len(suite.variants) for suite in suites) >= 100
    for name, variant in variants.items():
        assert variant.target is not None
        assert variant.target.kind is TargetKind.TRANSFORMERS
        assert variant.target.place == name


@pytest.mark.slow
def test_five_kinds_are_predicted_and_measured(tmp_path):
    pytest.importorskip("transformers")
    names = "gpt2,bert,t5,umt5,mamba"
    options = ["--suite", "architectures", "--device", "cpu", "--variants", names]
    done = CliRunner().invoke(run, [*options, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    found = {one.case.variant: peaks(one) for one in load_run(tmp_path / "run").records}
    assert set(found) == set(names.split(","))
    for name, pair in found.items():
        assert pair is not None, name
        predicted, measured = pair
        assert predicted == measured, name
