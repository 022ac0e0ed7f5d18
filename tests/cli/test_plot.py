from pathlib import Path

import pytest
from click.testing import CliRunner

from reformer_bench.cli.main import main
from reformer_bench.cli.plot import plot
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome, Record
from tests.builders import record


def save(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [record.model_dump_json() + "\n" for record in records]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


def test_plots_go_into_the_runs_folder_and_their_names_are_printed(tmp_path: Path) -> None:
    run = save(tmp_path / "run", [record(length=512), record()])
    arguments = [str(run), "--format", "svg,pdf", "--quantity", "memory"]
    result = CliRunner().invoke(plot, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    printed = [Path(line) for line in result.output.splitlines()]
    assert printed == [run / f"train_step-memory.{kind}" for kind in ("svg", "pdf")]
    assert all(path.is_file() for path in printed)


def test_out_names_another_folder(tmp_path: Path) -> None:
    run = save(tmp_path / "run", [record()])
    out = tmp_path / "a" / "b"
    arguments = [str(run / "records.jsonl"), "--format", "svg", "--out", str(out)]
    CliRunner().invoke(plot, arguments, catch_exceptions=False)
    assert {path.name for path in out.iterdir()} == {
        "overview.svg",
        "train_step-memory.svg",
        "train_step-throughput.svg",
    }


def test_a_run_where_nothing_finished_exits_with_4(tmp_path: Path, capsys) -> None:
    run = save(tmp_path / "run", [record(outcome=Outcome.ERROR)])
    with pytest.raises(SystemExit) as caught:
        main(["plot", str(run)])
    assert caught.value.code == 4
    assert "nothing to draw" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (None, [], "no such run"),
        ([], [], "no records"),
        ([record()], ["--format", "gif"], "'gif' is not one of png, svg, pdf"),
    ],
    ids=["missing", "empty", "unknown-format"],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, make: list[Record] | None, options: list[str], words: str
) -> None:
    run = tmp_path / "run" if make is None else save(tmp_path / "run", make)
    with pytest.raises(InputError, match=words):
        CliRunner().invoke(plot, [str(run), *options], catch_exceptions=False)


def test_variants_and_lengths_choose_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, lengths = ("reformer", "transformer", "mine"), (512, 1024, 3072, 8192)
    run = save(tmp_path / "run", [record(name, n) for name in names for n in lengths])
    drawn: list[tuple[str, int]] = []
    whole: list[Record] = []

    def write_plots(records: list[Record], *rest: object) -> list[Path]:
        drawn.extend((one.case.variant, one.case.length) for one in records)
        whole.extend(rest[-1])  # type: ignore[call-overload]
        return [tmp_path]

    monkeypatch.setattr("reformer_bench.report.plots.files.write_plots", write_plots)
    options = ["--variants", "mine, transformer", "--seq-len", "1K..4K"]
    CliRunner().invoke(plot, [str(run), *options], catch_exceptions=False)
    # 3K lies in the range, though it is no doubling of 1K.
    assert drawn == [(name, n) for name in ("transformer", "mine") for n in (1024, 3072)]
    assert len(whole) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--variants", "reformr"], "no variant 'reformr'; did you mean 'reformer'.$"),
        (["--variants", "zzz"], "no variant 'zzz'; it has: reformer, transformer$"),
        (["--variants", ","], "--variants: names at least one of: reformer"),
        (["--seq-len", "2K"], "--seq-len: the run has no length 2K .it has: 512, 1K"),
        (["--seq-len", "512,4K..8K"], "the run has no length 4K..8K"),
        (["--seq-len", "x"], "--seq-len: 'x' is not a sequence length"),
        (["--variants", "transformer", "--seq-len", "512"], "no such variant at such a length"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_part_that_the_run_does_not_have_is_one_line(
    tmp_path: Path, options: list[str], words: str
) -> None:
    run = save(tmp_path / "run", [record(length=512), record(), record("transformer")])
    with pytest.raises(InputError, match=words) as caught:
        CliRunner().invoke(plot, [str(run), *options], catch_exceptions=False)
    assert "\n" not in str(caught.value)
