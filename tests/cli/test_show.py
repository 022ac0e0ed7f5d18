import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from reformer_bench.cli.show import show
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Memory, Outcome, Record
from reformer_bench.schema.units import MIB
from tests.builders import case, explanation, record_of, sweep


def save(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [record.model_dump_json() + "\n" for record in records]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "peak memory"),
        (["--details"], "warm step"),
        (["--breakdown"], "activations"),
        (["--accuracy"], "equal to the byte"),
        (["--format", "markdown"], "| length |"),
        (["--relative-to", "reformer"], "as multiples of reformer"),
        (["--format", "csv", "--breakdown"], "activations_share"),
    ],
)
def test_each_table_prints(tmp_path: Path, options: list[str], words: str) -> None:
    run = save(tmp_path / "run", sweep(predictions=True))
    result = CliRunner().invoke(show, [str(run), *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert words in result.output


def test_json_is_json_from_a_records_file_too(tmp_path: Path) -> None:
    run = save(tmp_path / "run", sweep()[:3])
    arguments = [str(run / "records.jsonl"), "--format", "json"]
    result = CliRunner().invoke(show, arguments, catch_exceptions=False)
    assert len(json.loads(result.stdout)) == 3


def test_a_missing_or_empty_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        CliRunner().invoke(show, [str(tmp_path / "nowhere")], catch_exceptions=False)
    run = save(tmp_path / "run", [])
    with pytest.raises(InputError, match="no records"):
        CliRunner().invoke(show, [str(run)], catch_exceptions=False)


def test_two_tables_at_once_are_refused(tmp_path: Path) -> None:
    run = save(tmp_path / "run", sweep()[:1])
    with pytest.raises(InputError, match="one of them"):
        CliRunner().invoke(show, [str(run), "--details", "--breakdown"], catch_exceptions=False)


def test_accuracy_has_no_other_format(tmp_path: Path) -> None:
    run = save(tmp_path / "run", sweep(predictions=True)[:1])
    with pytest.raises(InputError, match="--accuracy: has no csv"):
        CliRunner().invoke(
            show, [str(run), "--accuracy", "--format", "csv"], catch_exceptions=False
        )


def test_an_unknown_baseline_lists_the_variants(tmp_path: Path) -> None:
    run = save(tmp_path / "run", sweep()[:3])
    with pytest.raises(InputError, match=r"--relative-to: the run has no variant 'x' \(allowed: "):
        CliRunner().invoke(
            show, [str(run), "--relative-to", "x"], catch_exceptions=False, standalone_mode=False
        )


def test_a_part_of_the_run_is_asked_for_as_in_run(tmp_path: Path) -> None:
    run = save(tmp_path / "run", sweep())
    part = ["--variants", "reformer,flash-transformer", "--seq-len", "1K,4K..8K"]
    result = CliRunner().invoke(show, [str(run), *part, "--format", "json"], catch_exceptions=False)
    shown = {(row["variant"], row["length"]) for row in json.loads(result.stdout)}
    assert shown == {
        (variant, length)
        for variant in ("reformer", "flash-transformer")
        for length in (1024, 4096, 8192)
    }
    with pytest.raises(InputError, match="did you mean 'reformer'"):
        CliRunner().invoke(show, [str(run), "--variants", "refrmer"], catch_exceptions=False)


@pytest.mark.parametrize("options", [[], ["--details"], ["--breakdown"]])
@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, options: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = save(tmp_path / "run", sweep("cuda", predictions=True))
    result = CliRunner().invoke(show, [str(run), *options], catch_exceptions=False)
    assert max(map(len, result.stdout.splitlines())) <= width
    assert "…" not in result.stdout


def out_of_memory(length: int, explained: bool = True, **changes) -> Record:
    """A case that ran out, with its prediction."""
    known = explanation() if explained else None
    memory = Memory(predicted_peak_bytes=1000 * MIB, predicted_explanation=known)
    one = record_of(case(length=length, **changes), Outcome.HOST_OOM, message="no memory left")
    return one.model_copy(update={"memory": memory})


def explain(run: Path, *options: str) -> str:
    arguments = [str(run), "--explain", *options]
    return CliRunner().invoke(show, arguments, catch_exceptions=False).stdout


@pytest.mark.parametrize("width", [80, 200])
def test_a_case_that_ran_out_says_what_filled_memory(tmp_path, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = explain(save(tmp_path / "run", [out_of_memory(64)]))
    assert max(map(len, shown.splitlines())) <= width
    assert "out of memory" in shown
    assert "no memory left" in shown
    assert "layers.*.attention: _softmax" in shown


def test_one_case_is_asked_for_by_its_id(tmp_path: Path) -> None:
    first, second = out_of_memory(64), out_of_memory(128)
    run = save(tmp_path / "run", [first, second])
    (row,) = json.loads(explain(run, "--case", second.case_id[:6], "--format", "json"))
    assert row["case_id"] == second.case_id
    assert row["explanation"]["peak_bytes"] == 1000 * MIB


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--explain", "--case", "xyz"), "--case: no case"),
        (("--explain", "--case", ""), "--case: 2 cases"),
        (("--case", "xyz"), "--case: goes with --explain"),
        (("--explain", "--format", "csv"), "--explain: has no csv"),
        (("--explain", "--details"), "give one of them"),
    ],
)
def test_what_cannot_be_explained_is_one_line(tmp_path: Path, options, words) -> None:
    run = save(tmp_path / "run", [out_of_memory(64), out_of_memory(128)])
    with pytest.raises(InputError, match=words):
        CliRunner().invoke(show, [str(run), *options], catch_exceptions=False)


def test_a_record_without_explanation_says_how_to_get_one(tmp_path: Path) -> None:
    ours, theirs = out_of_memory(64, False), out_of_memory(64, False, implementation="transformers")
    shown = explain(save(tmp_path / "run", [ours, theirs])).splitlines()
    assert shown[2].endswith(f"made the record; --case {ours.case_id[:8]} predicts it anew")
    assert "models of others" in shown[-1]


def test_a_record_of_a_run_without_predictions_says_so(tmp_path: Path) -> None:
    run = save(tmp_path / "run", [record_of(case(), peak=MIB)])
    assert "the case was not predicted when the record was made" in explain(run)


def test_a_model_of_ours_is_predicted_anew_and_others_are_not_run(tmp_path: Path) -> None:
    ours, theirs = out_of_memory(64, False), out_of_memory(64, False, implementation="transformers")
    run = save(tmp_path / "run", [ours, theirs])
    shown = explain(run, "--case", ours.case_id)
    assert "predicted anew" in shown
    assert f"the record's own prediction is {1000 * MIB:,} bytes" in " ".join(shown.split())
    assert "reformer_bench/model/" in shown
    assert "models of others" in explain(run, "--case", theirs.case_id)
