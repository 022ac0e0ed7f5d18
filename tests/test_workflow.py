"""Workflows and hooks are valid, and call programs, commands and options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reformer_bench.cli.main import COMMANDS, cli
from reformer_bench.store import load_baseline

ROOT = Path(__file__).parents[1]
FOR_USERS = ROOT / "docs" / "github-workflow.yml"
OWN = ROOT / ".github" / "workflows" / "ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
WORKFLOWS = (FOR_USERS, OWN)

pytestmark = pytest.mark.skipif(not HOOKS.is_file(), reason="not a checkout")


def parsed(path: Path) -> Any:
    yaml = pytest.importorskip("ruamel.yaml").YAML(typ="safe")
    return yaml.load(path.read_text())


def test_workflows_are_valid_by_githubs_schema():
    # The schema that check-jsonschema carries along; nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", *map(str, WORKFLOWS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_only_end_in_time_and_use_one_thread(path):
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 60
    assert job["env"]["OMP_NUM_THREADS"] == "1"


# The workflow for users


def test_it_measures_as_its_baseline_was_measured():
    environment = load_baseline(ROOT / setting("BASELINE"))[0].environment
    assert int(setting("OMP_NUM_THREADS")) == environment.torch_threads
    assert environment.torch_version == f"{setting('TORCH')}+cpu"


def setting(name: str) -> str:
    found = re.search(rf'^ *{name}: "?([^"\n]+)"?$', FOR_USERS.read_text(), flags=re.MULTILINE)
    assert found
    return found[1]


CALLS = (
    re.findall(r"reformer-bench ([a-z-]+)((?: .*\n?)*?)(?=\n\s*-|\Z)", FOR_USERS.read_text())
    if FOR_USERS.is_file()
    else []
)


@pytest.mark.parametrize(("command", "rest"), CALLS, ids=[name for name, _ in CALLS])
def test_its_commands_and_options_exist(command, rest):
    assert command in COMMANDS
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    options = re.findall(r"--[a-z-]+", rest)
    assert options
    for option in options:
        assert option in shown


# This project's own


def test_the_own_workflow_runs_what_a_developer_runs():
    (job,) = parsed(OWN)["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (cached,) = (step["with"] for step in job["steps"] if "cache" in step.get("with", {}))
    assert all((ROOT / name).is_file() for name in cached["cache-dependency-path"].split())


def test_hooks_run_the_checkers_that_the_tests_install_and_that_ci_runs():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.split(r"[^\w-]", requirement)[0] for requirement in extra["tests"]}
    (repo,) = parsed(HOOKS)["repos"]
    assert repo["repo"] == "local", "no version is named twice"
    entries = {hook["id"]: shlex.split(hook["entry"]) for hook in repo["hooks"]}
    assert set(entries) == {"ruff-check", "ruff-format", "mypy"}
    assert {words[0] for words in entries.values()} <= installed
    assert all(hook["language"] == "system" for hook in repo["hooks"])
    in_ci = (ROOT / ".ci" / "run").read_text()
    for words in entries.values():
        assert "\n" + " ".join(word for word in words[:2]) in in_ci


@pytest.mark.parametrize("hook", ["ruff-check", "ruff-format"])
def test_hooks_take_the_options_that_they_are_given(hook):
    (repo,) = parsed(HOOKS)["repos"]
    (entry,) = (one["entry"] for one in repo["hooks"] if one["id"] == hook)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(entry), str(ROOT / "tests" / "__init__.py")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
