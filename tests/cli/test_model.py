"""Commands with --model: anybody's model, whose code runs only where it is named."""

import json

import pytest

from reformer_bench.cli.main import main
from reformer_bench.store import load_run
from tests.targets import was_imported, write_target

FEW = ("--set", "device.cpu.max_samples=1", "--set", "device.cpu.sample_time_s=0.01")
SUITE = """
name = "theirs"
description = "a suite of somebody else's"
lengths = [16]
[variants.one]
model_from = "mine.py:Model"
[device.cpu]
max_samples = 1
"""


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return ended.value.code


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_target(tmp_path)


def test_predict_takes_a_target_and_says_what_it_is(file, capsys):
    assert call("predict", "--model", "mine.py:Model", "--seq-len", "16,32") == 0
    out = capsys.readouterr().out
    assert "Model" in out
    assert "Model: mine.py:Model" in out


def test_predict_shows_notes_once_and_keeps_them_in_json(file, capsys):
    asked = ("predict", "--model", "mine.py:Model", "--seq-len", "16,32")
    asked += ("--set", "train.compile=true")
    assert call(*asked) == 0
    assert capsys.readouterr().out.count("Note: torch.compile is not predicted") == 1
    assert call(*asked, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [len(row["notes"]) for row in rows] == [1, 1]


def test_max_len_shows_the_notes_of_its_prediction(file, capsys):
    asked = ("max-len", "--model", "mine.py:Model", "--memory-budget", "64MiB", "--limit", "64")
    asked += ("--set", "train.compile=true")
    assert call(*asked) == 0
    assert capsys.readouterr().out.count("Note: torch.compile is not predicted") == 1
    assert call(*asked, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["notes"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "nothing.py:x"), "--model: nothing.py: cannot be read"),
        (("--model", "mine.py:Nothing"), "mine.py has no 'Nothing'"),
        (("--model", "mine.py"), "is not a model (allowed: package.module:factory"),
        (("--model", "mine.py:Model", "--set", "model.n_layers=1"), "for models of this package"),
        (("--model", "mine.py:Model", "--set", "config.x=1"), "is for models named by hf:TYPE"),
        (("--model", "mine.py:Model", "--set", "args.x=1"), "takes no argument 'x'"),
        (("--model", "mine.py:Model", "--set", "train.optimizer=adm"), "did you mean 'Adam'?"),
        (("--model", "mine.py:Model", "--workload", "attention"), "for models of this package"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(file, capsys, arguments, said):
    assert call("predict", "--seq-len", "16", *arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_a_suites_code_runs_only_where_it_is_allowed(file, tmp_path, capsys):
    (tmp_path / "theirs.toml").write_text(SUITE, encoding="utf-8")
    for command in (("run",), ("run", "--device", "none"), ("run", "--dry-run"), ("check",)):
        assert call(*command, "--suite", "theirs.toml") == 2
        assert "--allow-code says that it may" in capsys.readouterr().err
    assert not was_imported(file)


@pytest.mark.slow
def test_a_run_of_a_target_is_gated_and_its_records_run_nothing(file, tmp_path, capsys):
    asked = ("--model", "mine.py:Model", "--seq-len", "16..128", *FEW)
    assert call("run", *asked, "--out", "out", "--quiet") == 0
    records = load_run(tmp_path / "out").records
    assert all(r.memory.peak_bytes == r.memory.predicted_peak_bytes for r in records)
    assert {record.settings["length"] for record in records} == {"tokens"}
    assert call("baseline", "out", "--out", "base.json") == 0

    file.with_suffix(".imported").unlink()
    for command in (
        ("show", "out"),
        ("show", "out", "--details"),
        ("show", "out", "--breakdown"),
        ("show", "out", "--explain"),
        ("export", "out", "--format", "csv", "--out", "out.csv"),
        ("plot", "out", "--out", "plots"),
        ("check", "out", "--baseline", "base.json"),
    ):
        assert call(*command) == 0, command
    capsys.readouterr()
    assert call("claims", "out") == 4
    assert "the paper's claims are about this package's models" in capsys.readouterr().err
    told = ("--seq-len", "16", "--memory-budget", "1GiB")
    assert call("recommend", "out", *told) == 2
    assert "has other models only" in capsys.readouterr().err
    assert not was_imported(file)

    # An edit of the file that costs memory: the case is the same, and needs more.
    costly = "self.module = Net(width, keep + 4)"
    code = file.read_text(encoding="utf-8").replace("self.module = Net(width, keep)", costly)
    file.write_text(code, encoding="utf-8")
    assert call("check", *asked, "--baseline", "base.json") == 1
    out = capsys.readouterr().out
    assert "Model" in out
    assert "peak" in out


@pytest.mark.slow
def test_validate_says_up_to_where_a_prediction_is_confirmed(file, capsys):
    assert call("validate", "--model", "mine.py:Model", "--seq-len", "16,32") == 0
    said = "Model: equal to the byte at 16, 32 tokens; the prediction is confirmed up to 32."
    assert said in capsys.readouterr().out


def test_validate_needs_a_model_for_its_options(capsys):
    assert call("validate", "--seq-len", "16") == 2
    assert "--seq-len: needs --model or --preset" in capsys.readouterr().err
