"""The tables of every command: a narrow terminal shows the figures that a wide one shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reformer_bench.cli.main import main
from reformer_bench.run.executor import Description
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.schema.baseline import baseline_of
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import GIB, MIB
from reformer_bench.store import save_baseline
from tests.builders import record, sweep
from tests.claims.paper_data import SUPPORTING

TINY = ("--set", "model.d_model=16", "--set", "model.d_ff=32", "--set", "model.n_heads=2")
LONG = "chunked-reversible-transformer"
NARROW, WIDE = 80, 200


def save(folder: Path, records: list[Record]) -> str:
    folder.mkdir()
    lines = [one.model_dump_json() + "\n" for one in records]
    (folder / "records.jsonl").write_text("".join(lines))
    return str(folder)


def suites(_: Path) -> tuple[str, ...]:
    return ("suites",)


def env(_: Path) -> tuple[str, ...]:
    return ("env", "--device", "cpu")


def predict(_: Path) -> tuple[str, ...]:
    return ("predict", *TINY, "--preset", LONG, "--seq-len", "64,1K", "--memory-budget", "1MiB")


def recommend(_: Path) -> tuple[str, ...]:
    return (
        "recommend",
        *TINY,
        "--seq-len",
        "256",
        "--memory-budget",
        "2MiB",
        "--attention",
        "local",
    )


def validate(_: Path) -> tuple[str, ...]:
    return ("validate", "--count", "3")


def check(folder: Path) -> tuple[str, ...]:
    save_baseline(folder / "old.json", baseline_of([record(LONG, peak=GIB), record(peak=GIB)]))
    new = save(folder / "new", [record(LONG, peak=2 * GIB), record(peak=900 * MIB)])
    return ("check", new, "--baseline", str(folder / "old.json"))


def claims(folder: Path) -> tuple[str, ...]:
    return ("claims", save(folder / "run", SUPPORTING["depth-free"]))


def show(folder: Path) -> tuple[str, ...]:
    return ("show", save(folder / "run", sweep("cuda", predictions=True)))


@pytest.mark.parametrize(
    "command",
    [
        suites,
        env,
        predict,
        recommend,
        pytest.param(validate, marks=pytest.mark.slow),
        check,
        claims,
        show,
    ],
)
def test_a_narrow_terminal_shows_every_figure(capsys, tmp_path, monkeypatch, command):
    # The device is looked at in a worker, which takes seconds to start.
    found = Description("cpu", record().environment)
    monkeypatch.setattr(LocalExecutor, "describe", lambda self, device: found)
    asked = command(tmp_path)
    printed = {}
    for width in (WIDE, NARROW):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            main(list(asked))
        printed[width] = capsys.readouterr().out
        assert max(map(len, printed[width].splitlines())) <= width
        assert "…" not in printed[width]
    assert figures(printed[NARROW]) == figures(printed[WIDE])
    assert figures(printed[NARROW])


def figures(text: str) -> list[str]:
    """Every figure of a table, whatever the order and the lines."""
    return sorted(
        re.findall(r"\d[\d.,]* (?:[KMGT]iB|B|ms|min|s)\b|-?\d+\.\d+", " ".join(text.split()))
    )


def test_a_pipe_is_wide_enough_for_the_figures_of_a_prediction(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit):
        main(list(predict(Path())))
    first = capsys.readouterr().out.splitlines()[1]
    assert first.split()[:3] == ["variant", "length", "peak"]
