"""Every snippet of the documentation does what it says: none is there only to be looked at."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from reformer_bench.check.compare import compare
from reformer_bench.check.words import message
from reformer_bench.cli.main import COMMANDS, cli
from reformer_bench.run.expand import expand
from reformer_bench.schema.record import Record
from reformer_bench.schema.suite import find_suite
from reformer_bench.schema.tolerances import Tolerances, load_tolerances
from reformer_bench.store import load_baseline
from tests.snippets import (
    DOCUMENTS,
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    is_shown_in,
    outputs,
)

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not a checkout")

TOUR = "your-model.md"
"""The page that test_your_model follows from its first block to its last."""
BLOCKS = [
    block
    for document in DOCUMENTS
    if document.is_file() and document.name != TOUR
    for block in blocks(document)
]

SHORTER = {
    "reformer-bench run --suite seq-scaling": ("--seq-len", "512", "--out", "main-job"),
    "reformer-bench predict --preset all --seq-len 16K..1M --memory-budget 16GiB": (
        "--seq-len",
        "2K,4K",
    ),
    "reformer-bench predict --preset reformer --set model.n_layers=12 --seq-len 64K "
    "--device-profile a100-40": ("--seq-len", "2K"),
    "reformer-bench max-len --preset all --memory-budget 16GiB": ("--limit", "1K"),
    "reformer-bench validate --count 24 --max-error 1%": ("--count", "2"),
    "reformer-bench validate --model hf:t5 --seq-len 64": (
        "--set",
        "config.num_layers=1",
        "--set",
        "config.vocab_size=100",
    ),
    "reformer-bench run --suite seq-scaling --device none": ("--seq-len", "512"),
    "reformer-bench run --suite ci --out run": ("--variants", "transformer,reformer"),
    "OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 "
    "reformer-bench run --suite ci --device cpu --out run": (
        "--variants",
        "transformer,reformer",
    ),
    "reformer-bench run --suite smoke --out smoke": (
        "--variants",
        "transformer,reformer",
        "--seq-len",
        "128",
    ),
    "reformer-bench run --suite peers --seq-len 4K,16K": ("--seq-len", "256"),
    "reformer-bench run --suite peers --variants reformer --set model.checkpoint=PATH": (
        "--seq-len",
        "128",
    ),
    "reformer-bench run --suite million --memory-budget 16GiB": ("--dry-run", "--no-predict"),
    "reformer-bench run --suite paper --out results/paper": ("--dry-run", "--no-predict"),
    "reformer-bench run --suite million --memory-budget 16GiB --out results/million": (
        "--dry-run",
        "--no-predict",
    ),
    "reformer-bench run --suite ablation --out results/ablation": ("--dry-run", "--no-predict"),
    "reformer-bench recommend --seq-len 64K --memory-budget 24GiB --attention lsh,sdpa "
    "--set model.n_layers=12": ("--seq-len", "2K"),
}
"""What the test adds to commands that take long; of an option given twice the last counts."""

REFERENCE = {
    "results/paper": "paper-*",
    "results/million": "million-*",
    "results/ablation": "ablation-*",
}
"""Which reference run stands for a run that was only listed."""


def of(*languages: str) -> pytest.MarkDecorator:
    """Parameters: the blocks in one of these languages, slow ones marked so."""
    found = [block for block in BLOCKS if block.language in languages]
    parameters = [
        pytest.param(block, id=block.name, marks=pytest.mark.slow if has_tests(block) else ())
        for block in found
    ]
    return pytest.mark.parametrize("block", parameters)


def has_tests(block: Block) -> bool:
    """Whether it is a file of tests, which pytest has to run in a process of its own."""
    return block.language == "python" and "\ndef test_" in block.text


def test_there_is_a_test_for_every_language():
    known = {"python", "sh", "bash", "console", "toml", "text"}
    assert {block.name: block.language for block in BLOCKS if block.language not in known} == {}
    assert {block.language for block in BLOCKS} == known


def test_every_file_of_the_docs_is_tested():
    # test_workflow has the workflow.
    found = {path.name for path in (ROOT / "docs").rglob("*") if path.suffix != ".md"}
    assert found == {"github-workflow.yml"}


# Python


@of("python")
def test_python_runs(block, tmp_path):
    if "from transformers" in block.text:
        pytest.importorskip("transformers")
    if has_tests(block):
        tests = re.findall(r"^def test_", block.text, flags=re.MULTILINE)
        (tmp_path / "test_snippet.py").write_text(block.text)
        plugins = ["-p", "reformer_bench.pytest_plugin", "-p", "no:cacheprovider"]
        done = process([sys.executable, "-m", "pytest", "-q", *plugins], tmp_path)
        assert f"{len(tests)} passed" in done.stdout, done.stdout + done.stderr
    else:
        exec(compile(block.text, block.name, "exec"), {"__name__": "__main__"})


# Shell


@of("bash")
def test_bash_takes_it(block, tmp_path):
    """The completion is there afterwards."""
    program = tmp_path / "reformer-bench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reformer_bench "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = process(
        ["bash", "-c", f"{block.text}\ncomplete -p reformer-bench"], ROOT, {"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert "_reformer_bench_completion" in done.stdout


@of("sh", "console")
def test_commands_are_ones_that_exist(block):
    assert commands(block)
    for command in commands(block):
        check(command)


def check(command: Command) -> None:
    """The command can be parsed: a renamed option, a lost extra or an unknown program fails."""
    program, *arguments = command.words
    match program:
        case "reformer-bench":
            parse(arguments)
        case "pip":
            assert arguments[0] == "install"
            check_requirement(next(word for word in arguments[1:] if word != "-e"))
        case "pytest":
            check_markers(arguments)
        case "ruff" | "mypy" | "pre-commit":
            # The first two are what .ci/run runs, and test_workflow has the hooks.
            assert command.words in {
                ("ruff", "check", "."),
                ("ruff", "format", "--check", "."),
                ("mypy",),
                ("pre-commit", "install"),
            }
        case "rm":
            assert arguments == ["-rf", "run"]
        case _:
            raise AssertionError(f"no test knows how to run {command}")


def parse(arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in COMMANDS
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    found.make_context(name, list(rest))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def check_requirement(requirement: str) -> None:
    found = re.fullmatch(r"(\.|reformer-bench|torch|pre-commit)(?:\[([\w,]+)\])?", requirement)
    assert found, requirement
    if found[2]:
        assert set(found[2].split(",")) <= set(pyproject()["project"]["optional-dependencies"])


def check_markers(arguments: list[str]) -> None:
    """pytest may be given ``-n auto`` and an expression of markers that there are."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options.keys() <= {"-n", "-m"}
    assert options.get("-n", "auto") == "auto"
    declared = pyproject()["tool"]["pytest"]["ini_options"]["markers"]
    markers = {line.split(":")[0] for line in declared}
    assert set(re.findall(r"\w+", options.get("-m", ""))) <= markers | {"and", "not"}


def test_each_shortened_command_is_in_the_documentation():
    shown = {
        str(command) for block in BLOCKS if block.language == "sh" for command in commands(block)
    }
    assert set(SHORTER) <= shown


@pytest.mark.slow
@of("sh")
def test_commands_run_one_after_another(block, tmp_path):
    # Installing and checking is what .ci/run does, and pytest is what runs here.
    left_out = {"pip", "pytest", "ruff", "mypy", "pre-commit"}
    pending = [c for c in commands(block) if c.words[0] not in left_out]
    if any("peers" in command.words for command in pending):
        pytest.importorskip("transformers")
        pytest.importorskip("reformer_pytorch")
        save_checkpoint(tmp_path / "PATH")
    shutil.copytree(ROOT / "results" / "baselines", tmp_path / "results" / "baselines")
    for command in pending:
        done = execute(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        put_references(command, tmp_path)


@pytest.mark.slow
@of("console")
def test_commands_print_what_is_shown_below_them(block):
    for command, shown in zip(commands(block), outputs(block), strict=True):
        done = process(
            [sys.executable, "-m", "reformer_bench", *command.words[1:]],
            ROOT,
            {"COLUMNS": "100", **command.environment},
        )
        assert done.returncode == 0, done.stderr
        printed = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        assert is_shown_in(shown, printed), "\n".join(printed)


def execute(command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    added = SHORTER.get(str(command), ())
    return process([*program_words(command), *added], folder, command.environment)


def program_words(command: Command) -> list[str]:
    """A command's words, with this package in the place of the program that an install brings."""
    program, *arguments = command.words
    words = {"reformer-bench": [sys.executable, "-m", "reformer_bench"]}.get(program, [program])
    return [*words, *arguments]


def put_references(command: Command, folder: Path) -> None:
    """Runs that were only listed, for the commands that read them."""
    for word in command.words:
        if "--dry-run" in SHORTER.get(str(command), ()) and word in REFERENCE:
            (found,) = (ROOT / "results" / "reference").glob(REFERENCE[word])
            shutil.copytree(found, folder / word)


def save_checkpoint(folder: Path) -> None:
    from tests.models import hf_model

    hf_model().save_pretrained(folder)


def process(
    words: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # One thread, as the baseline of the suite ci has; this package, from wherever it is.
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **settings, **(environment or {})},
        capture_output=True,
        text=True,
    )


# TOML, and what commands print


@of("toml")
def test_toml_is_a_suite_or_a_file_of_tolerances(block, tmp_path):
    file = tmp_path / "snippet.toml"
    file.write_text(block.text)
    if "[[tolerance]]" in block.text:
        assert load_tolerances(file).tolerance
    else:
        assert expand(find_suite(str(file)), "cpu")


@of("text")
def test_a_regression_is_reported_in_these_words(block):
    (old,) = (
        record
        for record in load_baseline(ROOT / "results" / "baselines" / "ci.json")
        if record.case.variant == "transformer"
    )
    (found,) = compare([old], [with_leak(old, 32 * 1024)], Tolerances()).cases
    assert message(found) == " ".join(block.text.split())


def with_leak(record: Record, n_bytes: int) -> Record:
    """A record whose first feed-forward layer keeps that much more for the backward pass."""
    data = record.model_dump(mode="json")
    memory = data["memory"]
    memory["predicted_peak_bytes"] += n_bytes
    memory["predicted_places"]["layers.0.feed_forward"]["activations"] += n_bytes
    memory["allocator"]["breakdown"]["activations_bytes"] += n_bytes
    for phase in memory["allocator"]["warm"]:
        if phase["phase"] == "backward":
            phase["allocated_bytes"] += n_bytes
    return Record.model_validate(data)


# Inline


def inline_options() -> Iterator[str]:
    for document in DOCUMENTS:
        if document.is_file():
            for code in re.findall(r"`([^`\n]+)`", document.read_text()):
                yield from re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)


def test_options_named_in_the_text_exist():
    known = {"--memory-compare"}  # the pytest plugin's
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known |= {option for parameter in command.params for option in parameter.opts}
    found = set(inline_options())
    assert found
    assert found <= known
