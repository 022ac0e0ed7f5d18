"""``predict``, ``max-len``, ``validate`` and ``run --device none``, from the command line."""

import csv
import io
import json
import pickle
from itertools import accumulate

import pytest

from reformer_bench.cli.main import main
from reformer_bench.run.executor import Description
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.schema.record import Outcome
from reformer_bench.store import load_run
from tests.builders import environment, record_of

TINY = (
    "--set", "model.d_model=16", "--set", "model.d_ff=32", "--set", "model.n_heads=2",
    "--set", "model.n_layers=1",
)  # fmt: skip
SUITE = """
name = "tiny"
description = "for tests"
lengths = [64, 4096]
model = { d_model = 16, d_ff = 32, n_heads = 2, n_layers = 1 }
variants.transformer.preset = "transformer"
variants.reformer.preset = "reformer"
"""


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


@pytest.mark.slow
def test_json_holds_bytes_that_add_up(capsys):
    code, out, _ = call(
        capsys, "predict", *TINY, "--seq-len", "64,128", "--memory-budget", "1MiB",
        "--format", "json",
    )  # fmt: skip
    rows = json.loads(out)
    assert code == 0
    assert [row["length"] for row in rows] == [64, 128]
    for row in rows:
        assert row["fits"] is (row["peak_bytes"] <= 2**20)
        assert row["flops"] > 0


@pytest.mark.slow
def test_csv_has_a_line_for_each_length_of_each_preset(capsys):
    _, out, _ = call(
        capsys, "predict", *TINY, "--preset", "reformer", "--preset", "transformer",
        "--seq-len", "64", "--format", "csv",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["variant"] for row in rows] == ["reformer", "transformer"]


def test_the_table_says_what_fits_in_a_device(capsys):
    code, out, _ = call(
        capsys, "predict", *TINY, "--seq-len", "64", "--device-profile", "t4", "--dtype", "bfloat16"
    )
    assert code == 0
    assert "t4" in out
    assert "yes" in out


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("grouping", ["tensor", "layer", "line", "kind"])
def test_the_peak_is_explained_below_the_table(capsys, monkeypatch, grouping, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = call(
        capsys, "predict", *TINY, "--preset", "transformer", "--seq-len", "64", "--explain",
        "--top", "3", "--group", grouping,
    )  # fmt: skip
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    assert "at the peak, in the" in out
    assert ("layers.0" if grouping == "layer" else "reformer_bench/") in out


def test_an_explanation_in_json_and_a_snapshot_add_up_to_the_peak(capsys, tmp_path):
    file = tmp_path / "predicted.pickle"
    code, out, _ = call(
        capsys, "predict", *TINY, "--preset", "transformer", "--seq-len", "64", "--explain",
        "--format", "json", "--snapshot", file,
    )  # fmt: skip
    (row,) = json.loads(out)
    found = row["explanation"]
    assert code == 0
    assert found["peak_bytes"] == row["peak_bytes"]
    assert len(found["holders"]) == 12
    held = sum(holder["held_bytes"] for holder in found["holders"])
    assert held + found["rest_bytes"] == row["peak_bytes"]
    events = pickle.loads(file.read_bytes())["device_traces"][0]
    changes = {"alloc": 1, "free_completed": -1}
    sums = accumulate(changes.get(event["action"], 0) * event["size"] for event in events)
    assert max(sums) == row["peak_bytes"]


def test_a_gpu_has_launches_bytes_and_a_bound_of_time(capsys):
    small = ("--seq-len", "64", "--dtype", "bfloat16", "--format", "json")
    _, out, _ = call(capsys, "predict", *TINY, *small, "--device-profile", "l4")
    (row,) = json.loads(out)
    assert row["launches"] > 10
    assert row["moved_bytes"] > row["parameters_bytes"]
    by_bytes, by_flops = row["moved_bytes"] / 300e9, row["flops"] / 121e12
    assert row["time_lower_bound_ms"] == pytest.approx(1e3 * max(by_bytes, by_flops))
    _, out, _ = call(capsys, "predict", *TINY, *small)
    assert not {"launches", "moved_bytes", "time_lower_bound_ms"} & json.loads(out)[0].keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--explain", "--format", "csv"), "--explain: has no CSV"),
        (("--snapshot", "x", "--seq-len", "64,128"), "--snapshot: holds one prediction"),
        (("--device-profile", "h100"), "did you mean 'h100-80'"),
        (("--memory-budget", "lots"), "--memory-budget: 'lots' is not a size"),
        (("--preset", "gpt"), "--preset: 'gpt' is not a preset"),
        (("--set", "model.layers=3"), "did you mean 'model.n_layers'"),
        (("--seq-len", "none"), "--seq-len: 'none' is not a sequence length"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_input_is_one_line_that_names_the_option(capsys, arguments, words):
    code, _, err = call(capsys, "predict", *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_a_snapshot_that_cannot_be_written_is_one_line(capsys):
    code, _, err = call(capsys, "predict", *TINY, "--seq-len", "64", "--snapshot", "/dev/null/x")
    assert code == 2
    assert err.splitlines()[-1].startswith("Error: /dev/null/x: cannot be written")


@pytest.mark.slow
def test_max_len_gives_a_length_that_fits_and_runs_it(capsys):
    code, out, _ = call(
        capsys, "max-len", *TINY, "--memory-budget", "64MiB", "--preset", "transformer",
        "--verify", "--format", "json",
    )  # fmt: skip
    (row,) = json.loads(out)
    assert code == 0
    assert row["predicted_peak_bytes"] <= 64 * 2**20
    assert 1000 < row["longest"] < row["too_long"]
    assert row["outcome"] == "ok", row["message"]
    assert row["longest_run"] == row["longest"]
    assert row["measured_peak_bytes"] <= 64 * 2**20


def test_a_length_that_does_not_run_is_an_error_that_says_the_longest_that_did(capsys, monkeypatch):
    def run(self, orders):
        for order in orders:
            fits = order.case.length < 1000
            outcome = Outcome.OK if fits else Outcome.HOST_OOM
            yield record_of(order.case, outcome, message=None if fits else "no memory left")

    found = Description("cpu", environment())
    monkeypatch.setattr(LocalExecutor, "run", run)
    monkeypatch.setattr(LocalExecutor, "describe", lambda self, device: found)
    code, out, err = call(
        capsys, "max-len", *TINY, "--memory-budget", "64MiB", "--preset", "transformer",
        "--verify", "--format", "json",
    )  # fmt: skip
    (row,) = json.loads(out)
    assert code == 1
    assert row["outcome"] == "host-oom"
    assert row["longest_run"] < 1000 < row["longest"]
    last = err.splitlines()[-1]
    assert last == (
        f"Error: transformer: length {row['longest']:,} was predicted to fit and did not run (out "
        f"of memory: no memory left); the longest that really ran has {row['longest_run']:,}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [("predict", "--seq-len", "64,128"), ("max-len",)])
def test_progress_goes_to_stderr(capsys, command):
    code, _, err = call(capsys, *command, *TINY, "--memory-budget", "1MiB")
    assert code == 0
    assert len(err.splitlines()) >= 2
    assert "done in" in err.splitlines()[-1]


def test_max_len_needs_something_to_fit_in(capsys):
    code, _, err = call(capsys, "max-len", *TINY)
    assert code == 2
    assert "--memory-budget or --device-profile" in err


@pytest.mark.slow
def test_validate_compares_and_holds_the_bound(capsys):
    code, out, _ = call(capsys, "validate", "--count", "2", "--max-error", "1%")
    assert code == 0
    assert "2 of 2 equal to the byte" in out
    code, _, err = call(capsys, "validate", "--max-error", "much")
    assert code == 2
    assert "--max-error: 'much' is not a percentage" in err


@pytest.mark.slow
def test_device_none_keeps_predictions_as_records(capsys, tmp_path):
    suite, out = tmp_path / "tiny.toml", tmp_path / "out"
    suite.write_text(SUITE)
    code, _, err = call(
        capsys, "run", "--suite", suite, "--device", "none", "--memory-budget", "32MiB",
        "--out", out,
    )  # fmt: skip
    assert code == 0, err
    records = {(r.case.variant, r.case.length): r for r in load_run(out).records}
    assert len(records) == 4
    over = records["transformer", 4096]
    assert over.outcome is Outcome.OVER_BUDGET
    assert "not started: predicted to take" in over.message
    fits = records["reformer", 4096]
    assert fits.outcome is Outcome.OK
    assert fits.memory.allocator.source == "fake-tensor"
    assert fits.timing is None
    assert (out / "train_step-memory.png").is_file()


@pytest.mark.slow
def test_a_dry_run_shows_predicted_peaks(capsys, tmp_path):
    suite = tmp_path / "tiny.toml"
    suite.write_text(SUITE)
    arguments = ("run", "--suite", suite, "--device", "cpu", "--dry-run")
    _, shown, _ = call(capsys, *arguments)
    assert shown.count("≈") == 4
    _, shown, _ = call(capsys, *arguments, "--no-predict")
    assert "≈" not in shown
