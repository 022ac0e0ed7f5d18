"""``validate --operators``: which operators are compared, and what is printed and returned."""

import json

import pytest

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.main import main
from reformer_bench.measure.fake import operator_samples


def validate(capsys, *names, output_format="table"):
    options = [word for name in names for word in ("--operator", name)]
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--operators", *options, "--format", output_format])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_chosen_operators_are_compared(capsys):
    code, out, err = validate(capsys, "cumsum", "aten.dist.default")
    assert code == 0, err
    assert "of 2 operators hold what their formulas say" in out


def test_a_difference_is_told_and_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr(operator_samples, "internal_bytes_on_cpu", lambda *_: 7)
    code, out, _ = validate(capsys, "dist", output_format="json")
    assert code == Exit.TOO_FAR_OFF
    document = json.loads(out)
    assert document["operators"] == 1
    assert document["different"][0]["operator"] == "aten.dist.default"
    assert document["different"][0]["expected_bytes"] == 7


def test_an_operator_without_samples_is_one_line(capsys):
    code, _, err = validate(capsys, "nonsense")
    assert code == Exit.INPUT
    assert "no sample of operator nonsense" in err
