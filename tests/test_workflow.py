"""The workflow to paste is valid by GitHub's schema, and calls commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from reformer_bench.cli.main import COMMANDS, cli
from reformer_bench.store import load_baseline

WORKFLOW = Path(__file__).parent.parent / "docs" / "github-workflow.yml"


def test_it_is_valid_by_githubs_schema():
    # The schema that check-jsonschema carries along; nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", str(WORKFLOW)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_threads_and_torch_are_those_of_the_baseline():
    baseline = load_baseline(WORKFLOW.parent.parent / "results" / "baselines" / "ci.json")
    made_with = baseline[0].environment
    text = WORKFLOW.read_text()
    assert f'OMP_NUM_THREADS: "{made_with.torch_threads}"' in text
    assert f'TORCH: "{made_with.torch_version.partition("+")[0]}"' in text


CALLS = re.findall(r"reformer-bench ([a-z-]+)((?: .*\n?)*?)(?=\n\s*-|\Z)", WORKFLOW.read_text())


@pytest.mark.parametrize(("command", "rest"), CALLS, ids=[name for name, _ in CALLS])
def test_its_commands_and_options_exist(command, rest):
    assert command in COMMANDS
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    options = re.findall(r"--[a-z-]+", rest)
    assert options
    for option in options:
        assert option in shown
