"""The arrows between packages hold, and the command line imports no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reformer_bench

PACKAGE = Path(reformer_bench.__file__).parent

EVERYTHING = {
    "schema", "store", "model", "peers", "techniques", "measure", "run", "check", "claims",
    "recommend", "report",
}  # fmt: skip

ALLOWED = {
    "schema": set(),
    "model": {"schema"},
    # to_native gives a model of ours.
    "peers": {"schema", "model"},
    "techniques": {"schema"},
    "measure": {"schema"},
    "store": {"schema"},
    "run": {"schema", "model", "peers", "techniques", "measure", "store"},
    "report": {"schema"},
    # For drawing.
    "check": {"schema", "report"},
    "claims": {"schema", "report"},
    "recommend": {"schema", "report"},
    "cli": EVERYTHING,
    "pytest_plugin": EVERYTHING,
    "__main__": {"cli"},
    # By name only, when they are asked for.
    "__init__": {"schema", "store", "model", "measure"},
}
"""What each part may import besides itself."""


def parts_imported(path: Path) -> set[str]:
    """The parts of the package that a module imports anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            # ``from reformer_bench import x``: x may be a part.
            names += [f"{module}.{alias.name}" for alias in node.names]
    parts = {name.split(".")[1] for name in names if name.startswith("reformer_bench.")}
    return parts & ALLOWED.keys()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_hold(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} has no place among the arrows"
    assert parts_imported(path) <= ALLOWED[part] | {part}


def loaded_after(program: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after a program."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {"torch", "pandas", "matplotlib", "numpy", "submitit", "transformers", "rich.live"}


def test_importing_the_command_line_loads_nothing_heavy():
    assert not loaded_after("import reformer_bench.cli.main") & HEAVY


@pytest.mark.parametrize(
    "name", ["run", "predict", "max_len", "validate", "show", "plot", "suites", "env"]
)
def test_importing_a_command_loads_nothing_heavy(name):
    assert not loaded_after(f"import reformer_bench.cli.{name}") & HEAVY


def test_preparing_a_run_loads_no_torch():
    program = (
        "from reformer_bench.cli.main import cli\n"
        "cli(['run', '--suite', 'ci', '--variants', 'reformer', '--device', 'cpu', '--dry-run'],"
        " standalone_mode=False)"
    )
    assert "torch" not in loaded_after(program)
