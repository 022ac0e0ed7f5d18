"""``recommend``: the choice, where its figures come from, and wrong input in one line."""

import json

import pytest

from reformer_bench.cli.main import main
from tests.builders import record

SMALL = ("--set", "model.d_model=32", "--set", "model.d_ff=64", "--set", "model.n_heads=2")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["recommend", *arguments])
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


@pytest.mark.slow
def test_the_choice_fits_and_is_the_fastest_that_does(capsys):
    asked = ("--seq-len", "512", "--attention", "lsh,sdpa", "--memory-budget", "3MiB", *SMALL)
    code, out, _ = run(capsys, *asked, "--format", "json")
    assert code == 0
    data = json.loads(out)
    options = {option["name"]: option for option in data["options"]}
    assert {name.split("-")[0] for name in options} == {"lsh", "sdpa"}
    assert data["cost_unit"] == "FLOP"
    chosen = options[data["recommended"]]
    fitting = [o for o in options.values() if o["peak_bytes"] <= data["budget_bytes"]]
    assert chosen in fitting
    assert len(fitting) < len(options)
    assert chosen["cost"] * 0.98 <= min(option["cost"] for option in fitting)


@pytest.mark.slow
def test_what_nothing_fits_is_said_and_is_4(capsys):
    asked = ("--seq-len", "256", "--attention", "lsh", "--memory-budget", "1KiB", *SMALL)
    code, out, _ = run(capsys, *asked)
    assert code == 4
    assert "No combination fits 1 KiB" in out


def test_a_run_on_another_kind_of_device_is_wrong_input(capsys, tmp_path):
    (tmp_path / "records.jsonl").write_text(record(device="cuda").model_dump_json() + "\n")
    code, _, err = run(capsys, str(tmp_path), "--seq-len", "512", "--memory-budget", "1GiB")
    assert code == 2
    assert "the runs were made on cuda, and the choice is to be made for cpu" in err


@pytest.mark.slow
def test_the_model_and_the_device_are_named(capsys):
    asked = ("--seq-len", "256", "--attention", "sdpa", "--device-profile", "t4", *SMALL)
    code, out, _ = run(capsys, *asked, "--set", "model.n_layers=1")
    assert code == 0
    assert "Combinations at 256 tokens on t4, fastest first: 1 layer, d_model 32" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seq-len", "x", "--memory-budget", "1GiB"), "--seq-len: 'x'"),
        (("--seq-len", "512"), "--memory-budget or --device-profile"),
        (("--seq-len", "512", "--memory-budget", "1GiB", "--attention", "foo"), "'foo' is not"),
        (("/nowhere", "--seq-len", "512", "--memory-budget", "1GiB"), "/nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_2(capsys, arguments, said):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
