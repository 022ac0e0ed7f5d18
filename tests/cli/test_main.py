"""The command group: lazy commands, one-line errors, exit codes."""

import pytest

from reformer_bench import __version__
from reformer_bench.cli import main as cli_main
from tests.builders import record


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli_main.main(list(arguments))
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_the_version(capsys):
    assert run(capsys, "--version") == (0, f"reformer-bench, version {__version__}\n", "")


def test_help_lists_every_command_in_its_order(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    names = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()]
    assert names == list(cli_main.COMMANDS)


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_every_command_has_help(capsys, name):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert f"Usage: reformer-bench {name}" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rn"], "there is no command 'rn', did you mean 'run'?"),
        (["run"], "give --suite, --model, or both"),
        (["run", "--suite", "smok"], "no suite 'smok', did you mean 'smoke'?"),
        (["run", "--suite", "smoke", "--device", "gpu"], "--device: 'gpu' is not one of auto, cpu"),
        (["run", "--suite", "smoke", "--set", "model.n_hashes=x"], "--set: model.n_hashes = 'x'"),
        (["run", "--suite", "smoke", "--seq-len", "x"], "--seq-len: 'x' is not a sequence length"),
        (["run", "--suite", "smoke", "--variants", "reformr"], "did you mean 'reformer'?"),
        (["run", "--suite", "smoke", "--memory-budget", "1XB"], "--memory-budget: '1XB' is not"),
        (["run", "--suite", "smoke", "--memory-budget", "0"], "'0' is 0 B, less than any case"),
        (["run", "--suite", "smoke", "--case-timeout", "0"], "--case-timeout: case_timeout_s = 0"),
        (["run", "--suite", "smoke", "--set", "n_hash=3"], "did you mean 'model.n_hashes'?"),
        pytest.param(
            ["run", "--suite", "smoke", "--device", "cuda:7", "--dry-run"],
            "--device: cuda:7 was",
            marks=pytest.mark.slow,  # It is looked for in a worker.
        ),
        (["run", "--suite", "smoke", "--excutor", "local"], "No such option '--excutor'. Did you"),
        (["predict", "--preset", "refrmer"], "not a preset, did you mean 'reformer'?"),
        (["predict", "--workload", "trainstep"], "Did you mean 'train_step'?"),
        (["show", "run", "--format", "jsn"], "Did you mean 'json'?"),
        (["run", "--suite", "smoke", "--set", "model.n_heads=3"], "variant transformer: n_heads"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_on_stderr_and_exit_code_2(capsys, arguments, line):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert line in err
    assert err.count("\n") == 1


def test_an_interrupt_is_exit_code_130(capsys, monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reformer_bench.schema.suite.shipped_suites", interrupted)
    code, out, err = run(capsys, "suites")
    assert (code, out.strip(), err.strip()) == (130, "", "Interrupted.")


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (("plot",), "reformer_bench.report.plots.files.write_plots"),
        (("show",), "reformer_bench.report.tables.summary_table"),
        (("claims",), "reformer_bench.claims.paper.judge_claims"),
        (("claims", "--plot", "c.png"), "reformer_bench.claims.figure.write_claims_figure"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_interrupt_while_drawing_is_said(capsys, monkeypatch, tmp_path, command, where):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "records.jsonl").write_text(record().model_dump_json() + "\n")
    monkeypatch.setattr(where, interrupted)
    code, _, err = run(capsys, *command, str(tmp_path))
    assert code == 130
    assert err.splitlines()[-1] == "Interrupted."


def test_suites_are_listed_with_claim_and_time(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(capsys, "suites")
    assert code == 0
    for words in ("smoke", "seq-scaling", "Table 3", "6 min"):
        assert words in out


def test_a_dry_run_lists_the_cases_and_leaves_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("run", "--suite", "smoke", "--device", "cpu", "--dry-run", "--no-predict")
    code, out, _ = run(capsys, *asked, "--seq-len", "2K")
    assert code == 0
    assert out.count("train_step") == out.count("forward") == 6
    assert "12 cases on cpu; nothing was run" in out
    assert list(tmp_path.iterdir()) == []
