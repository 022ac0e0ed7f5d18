"""``check`` and ``baseline``: each exit code for what it stands for, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from reformer_bench.cli.main import main
from reformer_bench.run.expand import expand
from reformer_bench.schema.baseline import baseline_of
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.suite import find_suite
from reformer_bench.schema.units import MIB
from reformer_bench.store import RECORDS, load_baseline, load_run, save_baseline
from tests.builders import record

PEAK = 200 * MIB


@pytest.fixture
def run(tmp_path, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def files(tmp_path):
    def write(old: Sequence[Record], new: Sequence[Record]) -> tuple[object, ...]:
        save_baseline(tmp_path / "baseline.json", baseline_of(old))
        text = "".join(found.model_dump_json() + "\n" for found in new)
        (tmp_path / RECORDS).write_text(text)
        return tmp_path / RECORDS, "--baseline", tmp_path / "baseline.json"

    return write


def other(found: Record, **fields: object) -> Record:
    changed = found.environment.model_copy(update=fields)
    return found.model_copy(update={"environment": changed})


def test_nothing_changed_is_0(run, files):
    code, out, _ = run("check", *files([record()], [record()]))
    assert code == 0
    assert out.splitlines()[-1].strip() == "1 case: 1 ok"


@pytest.mark.parametrize(
    "new", [record(peak=2 * PEAK), record(outcome=Outcome.DEVICE_OOM)], ids=["grown", "oom"]
)
def test_a_case_that_needs_more_or_no_longer_fits_is_1(run, files, new):
    assert run("check", *files([record(peak=PEAK)], [new]))[0] == 1


def test_a_regression_counts_also_where_cases_are_missing(run, files):
    asked = files([record(peak=PEAK), record("transformer")], [record(peak=2 * PEAK)])
    assert run("check", *asked)[0] == 1


def test_improvements_and_new_cases_are_0(run, files):
    asked = files([record(peak=PEAK)], [record(peak=PEAK // 2), record("transformer")])
    assert run("check", *asked)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either RUN, or --suite or --model"),
        (("run", "--suite", "ci"), "either RUN, or --suite or --model"),
        (("nothing", "--baseline", "nothing.json"), "cannot be read"),
        (("--suite", "ci", "--baseline", "nothing.json"), "cannot be read"),
        (("--suite", "smoek"), "did you mean 'smoke'"),
        (("run", "--allow", "env.colour"), "--allow: 'env.colour'"),
        (("run", "--tolerance", "speed=1%"), "metric = 'speed'"),
        (("run", "--tolerances", "nothing.toml"), "nothing.toml: cannot be read"),
        (("run", "--format", "html"), "html"),
    ],
)
def test_wrong_input_is_2_and_said_in_one_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("check", *arguments)
    assert code == 2
    assert said in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_another_environment_is_3_with_what_differs_and_can_be_accepted(run, files):
    asked = files([record()], [other(record(), torch_version="2.14.0")])
    code, out, _ = run("check", *asked)
    assert code == 3
    assert "env.torch_version: 2.13.0 then, 2.14.0 now" in " ".join(out.split())
    assert run("check", *asked, "--allow", "env.torch")[0] == 0


@pytest.mark.parametrize(
    "new",
    [[], [record("transformer")], [record(outcome=Outcome.ERROR)]],
    ids=["no records", "another case", "an error"],
)
def test_missing_cases_are_4(run, files, new):
    assert run("check", *files([record()], new))[0] == 4


def test_a_run_of_nothing_but_new_cases_is_4(run, files, tmp_path):
    run_file, option, path = files([record()], [record("transformer")])
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "cases": []}))
    assert run("check", run_file, option, path)[0] == 4


def test_ctrl_c_while_a_suite_runs_is_130(run, files, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reformer_bench.cli.check.compare_now", interrupted)
    _, *baseline = files([record()], [])
    assert run("check", "--suite", "ci", *baseline)[0] == 130


def test_tolerances_come_from_the_file_and_the_command_line(run, files, tmp_path):
    asked = files([record(peak=PEAK)], [record(peak=int(1.05 * PEAK))])
    rules = tmp_path / "tolerances.toml"
    rules.write_text('[[tolerance]]\nvariant = "reformer"\ntolerance = "6%"\n')
    assert run("check", *asked)[0] == 1
    assert run("check", *asked, "--tolerances", rules)[0] == 0
    assert run("check", *asked, "--tolerance", "allocated=6%")[0] == 0
    assert run("check", *asked, "--tolerances", rules, "--tolerance", "allocated=1%")[0] == 1


@pytest.mark.parametrize("form", ["markdown", "junit", "github", "json"])
def test_the_exit_code_is_the_same_in_every_format(run, files, form):
    asked = files([record(peak=PEAK)], [record(peak=2 * PEAK)])
    code, out, _ = run("check", *asked, "--format", form)
    assert code == 1
    assert "regression" in out


def test_a_baseline_is_made_of_a_run_and_another_run_may_stand_for_one(run, files, tmp_path):
    run_file, *_ = files([record()], [record(peak=PEAK)])
    out = tmp_path / "kept" / "ci.json"
    code, text, _ = run("baseline", run_file, "--out", out)
    assert (code, text) == (0, f"{out}: 1 case\n")
    assert load_baseline(out)[0].memory == record(peak=PEAK).memory
    assert run("check", run_file, "--baseline", run_file)[0] == 0


def test_a_run_in_which_nothing_ended_makes_no_baseline(run, files, tmp_path):
    run_file, *_ = files([record()], [record(outcome=Outcome.ERROR)])
    out = tmp_path / "kept.json"
    assert run("baseline", run_file, "--out", out)[0] == 4
    assert not out.exists()


SUITE = """
name = "tiny"
description = "for tests"
lengths = [32]
model = { d_model = 16, d_ff = 32, n_heads = 2, n_layers = 1, max_length = 64 }
device.cpu = { max_samples = 1, sample_time_s = 0.01 }
[variants.transformer]
preset = "transformer"
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_a_suite_is_measured_with_the_threads_of_its_baseline(run, tmp_path, monkeypatch, threads):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    Path("tiny.toml").write_text(SUITE)
    asked = ("check", "--suite", "./tiny.toml", "--baseline", "made.json")
    save_baseline(Path("made.json"), baseline_of([other(record(), torch_threads=threads)]))
    _, _, err = run(*asked, "--out", "first")
    plural = "" if threads == 1 else "s"
    first, last = err.splitlines()
    assert first == f"tiny: measuring 1 case with {threads} thread{plural}, as the baseline was"
    assert last.startswith("tiny: 1 case in ")
    (made,) = load_run(Path("first")).records
    assert made.environment.torch_threads == threads
    assert os.environ["OMP_NUM_THREADS"] == "2"
    _, _, err = run(*asked, "--allow", "env.torch_threads")
    assert err.startswith("tiny: measuring 1 case with 2 threads\n")


@pytest.mark.slow
def test_a_suite_is_measured_with_the_instructions_of_its_baseline(run, tmp_path, monkeypatch):
    """A baseline that was made with few of them holds on every processor that has them."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("not an x86 processor with AVX2")
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(SUITE + "model = { dtype = 'bfloat16' }\n")
    recorded = "AVX2, oneDNN AVX2"
    save_baseline(Path("made.json"), baseline_of([other(record(), instruction_set=recorded)]))
    _, _, err = run("check", "--suite", "./tiny.toml", "--baseline", "made.json", "--out", "first")
    assert f"and the instructions of {recorded}, as the baseline was" in err.splitlines()[0]
    (made,) = load_run(Path("first")).records
    assert made.environment.instruction_set == recorded
    assert made.memory.predicted_peak_bytes == made.memory.allocator.peak_allocated_bytes


@pytest.mark.slow
def test_what_cannot_be_compared_is_not_measured(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(SUITE)
    case = expand(find_suite("./tiny.toml"), "cpu")[0]
    old = record().model_copy(update={"case": case, "case_id": case.id})
    save_baseline(Path("made.json"), baseline_of([other(old, torch_version="1.0")]))
    monkeypatch.setattr("reformer_bench.cli.check.measure", None)
    code, out, err = run("check", "--suite", "./tiny.toml", "--baseline", "made.json")
    assert code == 3
    assert "env.torch_version: 1.0 then" in " ".join(out.split())
    assert err == "tiny: nothing can be compared, so nothing is run\n"
    code, out, _ = run(
        "check", "--suite", "./tiny.toml", "--baseline", "made.json", "--format", "json"
    )
    assert (code, json.loads(out)["summary"]) == (3, {"not-comparable": 1})


@pytest.mark.slow
def test_a_suite_is_run_predicted_and_checked_in_one_go(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(SUITE)
    empty = baseline_of([record()])
    save_baseline(Path("results/baselines/tiny.json"), empty)
    code, _, err = run("check", "--suite", "./tiny.toml", "--out", "first")
    assert code == 4
    assert len(err.splitlines()) == 2
    assert run("baseline", "first", "--out", "results/baselines/tiny.json")[0] == 0
    code, out, _ = run("check", "first")
    assert code == 0
    assert "allocated peak" in out
    assert "predicted peak" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "results", "tiny.toml"]
