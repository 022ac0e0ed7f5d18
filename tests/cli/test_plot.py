from pathlib import Path

import pytest
from click.testing import CliRunner

from reformer_bench.cli.plot import plot
from reformer_bench.spec.errors import InputError
from reformer_bench.spec.record import Outcome, Record
from tests.report.builders import record


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


def test_a_run_where_nothing_finished_exits_with_4(tmp_path: Path) -> None:
    run = save(tmp_path / "run", [record(outcome=Outcome.ERROR)])
    result = CliRunner().invoke(plot, [str(run)], catch_exceptions=False)
    assert result.exit_code == 4
    assert "nothing to draw" in result.output
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
