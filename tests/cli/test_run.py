"""``run``, from the command line to the files, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from reformer_bench.cli.main import main
from reformer_bench.run.executor import Description
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.schema.record import Environment, Load, Outcome
from reformer_bench.store import PREDICTIONS, RECORDS, RUN_INFO, load_run
from tests.builders import environment, record_of

PROGRESS = ("predicting memory", "Warning: ")
ROOT = Path(__file__).parent.parent.parent
SUITE = """
name = "tiny"
description = "for tests"
lengths = [32, 64]

[model]
d_model = 16
d_ff = 32
n_heads = 2
n_layers = 1
max_length = 1048576

[variants.transformer]
preset = "transformer"

[device.cpu]
max_samples = 2
sample_time_s = 0.01
"""


@pytest.fixture
def suite(tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE)
    return path


def command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "-m", "reformer_bench", *map(str, arguments)]
    return words, {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words, env = command(*arguments)
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_run_leaves_records_plots_and_a_table_and_is_continued(suite, tmp_path):
    asked = ("run", "--suite", suite, "--device", "cpu")
    first = run(tmp_path, *asked, "--seq-len", "32")
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("tiny-")
    assert folder.name.endswith("Z-cpu")
    names = {path.name for path in folder.iterdir()}
    assert {RECORDS, RUN_INFO, "train_step-memory.png", "train_step-memory.svg"} <= names
    assert "[1/1] transformer" in first.stdout
    assert "\x1b" not in first.stdout
    for name in names - {RUN_INFO, PREDICTIONS}:
        assert str(Path("results") / folder.name / name) in first.stdout
    assert json.loads((folder / RUN_INFO).read_text())["suite"]["lengths"] == [32]

    second = run(tmp_path, *asked, "--seq-len", "32,64", "--out", folder)
    assert second.returncode == 0, second.stderr
    assert "1 of 2 cases have a result there already and are not repeated" in second.stdout
    assert "predicting memory: 1 case\n" in second.stderr, "the other was predicted before"
    third = run(tmp_path, *asked, "--seq-len", "32,64", "--out", folder)
    assert "2 of 2 cases have a result there already and are not repeated" in third.stdout
    assert "predicting" not in third.stderr
    assert [r.case.length for r in load_run(folder).records] == [32, 64]


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_ended_and_leaves_no_process(suite, tmp_path):
    out = tmp_path / "out"
    # A million tokens take minutes: the second case is interrupted while it runs.
    words, env = command(
        "run", "--suite", suite, "--device", "cpu", "--out", out, "--seq-len", "32,1M",
        "--set", "variants.transformer.preset=reformer", "--case-timeout", "1000000",
    )  # fmt: skip
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("[1/2]") for line in process.stdout)
    caller = psutil.Process(process.pid)
    while len(helpers := caller.children(recursive=True)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    lines = [line for line in errors.splitlines() if not line.startswith(PROGRESS)]
    assert len(lines) == 1
    assert lines[0].startswith(f"Interrupted: 1 of 2 cases are kept in {out}")
    assert len(load_run(out).records) == 1
    _, alive = psutil.wait_procs(helpers, timeout=10)
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


class Failing:
    """An executor all of whose cases run out of memory."""

    takes_all = False

    def describe(self, device: str) -> Description:
        return Description("cpu", environment())

    def run(self, orders):
        for order in orders:
            yield record_of(order.case, Outcome.HOST_OOM, message="no memory")

    def close(self) -> None:
        pass


class Disturbed(Failing):
    """An executor on a busy machine: every case meets its time limit, until ``calm``."""

    calm = False

    def run(self, orders):
        for order in orders:
            if self.calm:
                yield record_of(order.case)
                continue
            found = record_of(order.case, Outcome.TIMEOUT, message="killed after 600 s")
            load = Load(own_cores=0.5, other_cores=1.0)
            yield found.model_copy(update={"wall_ms": 6e5, "load": load})


def run_failing(
    capsys, monkeypatch, *arguments: object, executor: Failing | None = None
) -> tuple[int, str, str]:
    made = executor or Failing()
    monkeypatch.setattr("reformer_bench.cli.run.make_executor", lambda asked: made)
    with pytest.raises(SystemExit) as caught:
        main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_nothing_measured_is_exit_code_4_and_its_records_are_kept(
    suite, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    asked = ("--suite", suite, "--out", out, "--no-predict")
    code, text, errors = run_failing(capsys, monkeypatch, *asked, "-q")
    assert code == 4
    assert text == ""
    assert errors == "Error: no case finished, so nothing was measured\n"
    assert [r.outcome for r in load_run(out).records] == [Outcome.HOST_OOM, Outcome.SKIPPED]


def test_the_table_shows_where_a_variant_stopped(suite, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    asked = ("--suite", suite, "--out", out, "--no-predict")
    _, text, _ = run_failing(capsys, monkeypatch, *asked)
    assert "[1/2] transformer  32  out of memory: no memory" in text
    assert "[2/2] transformer  64  not tried: transformer ran out of memory at 32 tokens" in text
    assert "0 of 2 cases measured. Without a result: 1 out of memory, 1 longer" in text


def test_a_variant_lost_to_a_busy_machine_is_an_error_and_a_retry_measures_it(
    suite, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    suite.write_text(SUITE + '[variants.other]\npreset = "reformer"\n')
    asked = ("--suite", suite, "--out", out, "--no-predict")
    executor = Disturbed()
    code, text, errors = run_failing(capsys, monkeypatch, *asked, executor=executor)
    assert code == 4
    assert "nothing was measured" in errors
    assert "0 of 4 cases measured. Without a result: 2 time limit, 2 longer" in text
    executor.calm = True
    code, text, _ = run_failing(capsys, monkeypatch, *asked, executor=executor)
    assert "0 of 4 cases have a result there already" in text
    words = " ".join(text.split())
    assert "4 have none (2 time limit, 2 longer than one that stopped): --retry" in words
    assert code == 4
    code, text, _ = run_failing(capsys, monkeypatch, *asked, "--retry", executor=executor)
    assert code == 0
    assert "4 without one are run again" in " ".join(text.split())
    assert "All 4 cases measured." in text
    assert {r.outcome for r in load_run(out).records} == {Outcome.OK}


def test_a_longer_time_limit_goes_on_where_the_shorter_one_stopped(
    suite, tmp_path, capsys, monkeypatch
):
    asked = ("--suite", suite, "--out", tmp_path / "out", "--no-predict")
    executor = Disturbed()
    run_failing(capsys, monkeypatch, *asked, executor=executor)
    executor.calm = True
    longer = ("--case-timeout", "601")
    code, text, _ = run_failing(capsys, monkeypatch, *asked, *longer, executor=executor)
    assert code == 0
    assert "All 2 cases measured." in text


@pytest.mark.parametrize(
    ("out", "words"),
    [((), "--retry: give the folder"), (("--out", "empty"), "--retry: --out empty holds no run")],
    ids=["no folder", "no run"],
)
def test_a_retry_needs_a_run(suite, tmp_path, capsys, monkeypatch, out, words):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run_failing(capsys, monkeypatch, "--suite", suite, "--retry", *out)
    assert code == 2
    assert words in errors


def test_another_run_in_the_folder_is_refused(suite, tmp_path, capsys, monkeypatch):
    asked = ("--suite", suite, "--out", tmp_path / "out", "--no-predict")
    run_failing(capsys, monkeypatch, *asked)
    code, _, errors = run_failing(capsys, monkeypatch, *asked, "--set", "seed=1")
    assert code == 2
    assert errors.startswith(f"Error: --out {tmp_path / 'out'}: transformer at 32 tokens was")
    assert errors.count("\n") == 1


def test_a_folder_of_something_else_is_refused(suite, tmp_path, capsys, monkeypatch):
    (tmp_path / "notes.txt").write_text("x")
    code, _, errors = run_failing(capsys, monkeypatch, "--suite", suite, "--out", tmp_path)
    assert code == 2
    assert "is not empty and holds no run" in errors


def test_a_budget_beyond_the_device_is_refused(suite, tmp_path, capsys, monkeypatch):
    card = environment(device_kind="cuda", device_name="a GPU", device_memory_bytes=2**34)
    monkeypatch.setattr(Failing, "describe", lambda self, device: Description("cuda", card))
    monkeypatch.chdir(tmp_path)
    asked = ("--suite", suite, "--memory-budget", "17GiB")
    code, _, errors = run_failing(capsys, monkeypatch, *asked)
    assert code == 2
    assert errors == "Error: --memory-budget: 17 GiB is more than the 16 GiB of a GPU\n"


def test_a_budget_without_its_unit_is_refused(suite, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run_failing(capsys, monkeypatch, "--suite", suite, "--memory-budget", "16")
    assert code == 2
    assert "'16' is 16 B" in errors
    assert "as in 16GiB" in errors


@pytest.mark.parametrize("form", ["table", "json"])
def test_env_is_a_table_or_json(form, capsys, monkeypatch):
    found = Description("cpu", environment())
    monkeypatch.setattr(LocalExecutor, "describe", lambda self, device: found)
    with pytest.raises(SystemExit) as caught:
        main(["env", "--format", form])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    if form == "json":
        assert Environment.model_validate(json.loads(text)) == environment()
    else:
        assert "host memory" in text
        assert "16 GiB" in text


def dry_run_of_paper(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--suite", "paper", "--dry-run", "--no-predict", *arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_options_change_every_part(capsys):
    code, out, _ = dry_run_of_paper(capsys, "--device", "cpu", "--seq-len", "1K")
    assert code == 0
    for variant in ("memory-efficient", "rounds-16", "reversible-16", "small-20", "swapped-8"):
        assert variant in out
    assert "2K" not in out


@pytest.mark.parametrize("option", [("--variants", "full"), ("--device", "none")])
def test_options_that_need_one_suite_say_so(capsys, option):
    code, _, err = dry_run_of_paper(capsys, *option)
    assert code == 2
    assert "includes others" in err
    assert "attention-scaling" in err
    assert err.count("\n") == 1
