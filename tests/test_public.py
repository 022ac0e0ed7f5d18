"""What the package gives by its own name, and that importing it loads nothing."""

import ast
import tomllib
from pathlib import Path

import pytest

import reformer_bench
from tests.test_arrows import HEAVY, loaded_after

ROOT = Path(__file__).parents[1]
NAMES = [name for name in reformer_bench.__all__ if name != "__version__"]


def test_importing_the_package_loads_nothing_heavy_and_none_of_its_parts():
    loaded = loaded_after("import reformer_bench")
    assert not loaded & (HEAVY | {"pydantic"})
    assert {name for name in loaded if name.startswith("reformer_bench")} == {"reformer_bench"}


def test_a_config_and_a_run_are_there_without_torch():
    program = "from reformer_bench import ModelConfig, load, preset\npreset('reformer')"
    assert not loaded_after(program) & {"torch", "matplotlib", "pandas"}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_listed_and_documented(name):
    found = getattr(reformer_bench, name)
    assert found.__module__.startswith("reformer_bench.")
    assert found.__doc__
    assert name in dir(reformer_bench)


def test_type_checkers_see_what_is_there():
    tree = ast.parse(Path(reformer_bench.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reformer_bench.")
        for alias in node.names
    }
    assert seen == set(NAMES) == set(reformer_bench._HOMES)


def test_another_name_is_an_error_that_names_it():
    with pytest.raises(AttributeError, match="has no attribute 'prdict'"):
        _ = reformer_bench.prdict


def test_the_version_is_written_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "reformer_bench/__init__.py"
