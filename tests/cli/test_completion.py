"""Shell completion: what a shell is offered where a name is due."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from reformer_bench.cli.main import COMMANDS, cli
from reformer_bench.schema.model import PRESETS
from reformer_bench.schema.suite import suite_names
from tests.builders import record


def offered(*line: str) -> list[str]:
    """What comes after all words but the last, going on from the last."""
    *before, incomplete = line
    shell = ShellComplete(cli, {}, "reformer-bench", "_REFORMER_BENCH_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (("",), list(COMMANDS)),
        (("run", "--suite", ""), suite_names()),
        (("check", "--suite", "seq"), ["seq-scaling"]),
        (("predict", "--preset", ""), [*PRESETS, "all"]),
        (("max-len", "--preset", "lsh"), ["lsh-transformer"]),
        (("run", "--suite", "smoke", "--variants", "refor"), ["reformer"]),
        (("run", "--suite", "ci", "--variants", "relu,local,dr"), ["relu,local,dropout"]),
        (("run", "--suite", "ci", "--variants", "relu,rel"), []),
        (("run", "--set", "model.n_h"), ["model.n_heads=", "model.n_hashes="]),
        (("predict", "--set", "model.residual=r"), ["model.residual=reversible"]),
        (("predict", "--set", "model.causal="), ["model.causal=true", "model.causal=false"]),
        (("recommend", "--set", "opt"), ["optimizer="]),
        (("run", "--device", "c"), ["cpu", "cuda"]),
        (("predict", "--device-profile", "h"), ["h100-80", "h200"]),
        (("recommend", "--attention", "lsh,s"), ["lsh,sdpa"]),
        (("show", "--format", "m"), ["markdown"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_names_are_offered(line, names):
    assert offered(*line) == names


def test_the_variants_of_a_run_are_those_it_holds(tmp_path: Path):
    text = "".join(
        record(name).model_dump_json() + "\n" for name in ("reformer", "flash-transformer")
    )
    (tmp_path / "records.jsonl").write_text(text)
    assert offered("show", str(tmp_path), "--variants", "") == ["reformer", "flash-transformer"]
    assert offered("show", str(tmp_path), "--relative-to", "f") == ["flash-transformer"]


def test_what_cannot_be_known_offers_nothing():
    assert offered("run", "--suite", "nosuch", "--variants", "") == []
    assert offered("show", "/nowhere", "--variants", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_there(shell):
    done = subprocess.run(
        [sys.executable, "-c", "from reformer_bench.cli.main import main; main()"],
        env={**os.environ, "_REFORMER_BENCH_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_REFORMER_BENCH_COMPLETE=" in done.stdout
