"""The tour through one's own model, followed from the text alone, in a folder with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snippets import ROOT, Block, blocks, commands, is_shown_in, outputs
from tests.test_snippets import check, process, program_words

TOUR = ROOT / "docs" / "your-model.md"
FILES = {"python": "model.py", "json": "small/config.json", "toml": "memory.toml"}
"""Where the reader saves a block in each of these languages."""
PROCESSOR = "autocast"
"""The variant whose figures depend on the processor: what bfloat16 kernels hold besides."""

pytestmark = pytest.mark.skipif(not TOUR.is_file(), reason="not a checkout")


def test_each_file_of_the_tour_is_named_where_the_reader_saves_it():
    text = TOUR.read_text(encoding="utf-8")
    found = [block.language for block in blocks(TOUR)]
    for language, name in FILES.items():
        assert found.count(language) == 1
        before = text.partition(f"```{language}\n")[0].rpartition("\n```\n")[2]
        assert f"`{name}`" in before


def test_the_step_of_a_workflow_is_the_command_that_was_shown():
    (step,) = (block for block in blocks(TOUR) if block.language == "yaml")
    command = step.text.removeprefix("- run: ").removesuffix(" --format github\n")
    assert f"$ {command}\n" in TOUR.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tour_prints_what_it_shows(tmp_path):
    pytest.importorskip("transformers")
    changed = False
    for block in blocks(TOUR):
        if block.language in FILES:
            path = tmp_path / FILES[block.language]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
        elif block.language == "diff":
            apply(block, tmp_path / "model.py")
            changed = True
        elif block.language == "console":
            run(block, tmp_path, exits_with_1=changed)
    assert changed
    assert (tmp_path / "pictures" / "overview.png").is_file()


def apply(block: Block, path: Path) -> None:
    """One line of a file is replaced, as the block says."""
    old, new = block.text.splitlines()
    text = path.read_text()
    assert text.count(old.removeprefix("-")) == 1
    path.write_text(text.replace(old.removeprefix("-"), new.removeprefix("+")))


def run(block: Block, folder: Path, *, exits_with_1: bool) -> None:
    """Each command prints what stands below it, whatever the processor computes bfloat16 with."""
    for command, shown in zip(commands(block), outputs(block), strict=True):
        check(command)
        done = process(program_words(command), folder, {"COLUMNS": "100"})
        assert done.returncode == int(exits_with_1), f"{command}\n{done.stdout}\n{done.stderr}"
        printed = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        assert is_shown_in(exact(shown), exact(printed)), "\n".join([str(command), *printed])


def exact(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(PROCESSOR)]
