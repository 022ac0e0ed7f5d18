"""Paths that can't be read or written: one line that names them, exit code 2, in every command."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reformer_bench.cli.main import main
from reformer_bench.run.executor import Description
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.suite import find_suite
from reformer_bench.store import RECORDS, RUN_INFO, RunInfo, RunWriter
from tests.builders import record


def folder_in_place_of_records(path: Path) -> Path:
    (path / RECORDS).mkdir(parents=True)
    return path


def file_in_place_of_a_folder(path: Path) -> Path:
    path.write_text("")
    return path / "run"


def no_text_in_records(path: Path) -> Path:
    path.mkdir()
    (path / RECORDS).write_bytes(b"\xff\xfe\x00\n")
    return path


def no_text_in_run_info(path: Path) -> Path:
    path.mkdir()
    (path / RECORDS).write_text(record().model_dump_json() + "\n")
    (path / RUN_INFO).write_bytes(b"\xff\xfe\x00")
    return path


def folder_in_place_of_run_info(path: Path) -> Path:
    (path / RUN_INFO).mkdir(parents=True)
    (path / RECORDS).write_text(record().model_dump_json() + "\n")
    return path


def link_to_nowhere(path: Path) -> Path:
    path.symlink_to(path.with_name("gone"))
    return path


def records_that_link_to_nowhere(path: Path) -> Path:
    path.mkdir()
    (path / RECORDS).symlink_to(path / "gone")
    return path


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path)
    return path


def name_too_long(path: Path) -> Path:
    return path / ("x" * 300)


def nested_without_end(path: Path) -> Path:
    path.mkdir()
    (path / RECORDS).write_text("[" * 100_000 + "\n")
    return path


BROKEN = [
    folder_in_place_of_records,
    file_in_place_of_a_folder,
    no_text_in_records,
    no_text_in_run_info,
    folder_in_place_of_run_info,
    link_to_nowhere,
    records_that_link_to_nowhere,
    link_to_itself,
    name_too_long,
    nested_without_end,
]

COMMANDS = {
    "show": ("show", "PATH"),
    "plot": ("plot", "PATH"),
    "claims": ("claims", "PATH"),
    "export": ("export", "PATH", "--format", "csv"),
    "baseline": ("baseline", "PATH", "--out", "kept.json"),
    "check": ("check", "PATH", "--baseline", "PATH"),
    "check, baseline": ("check", "--suite", "ci", "--baseline", "PATH"),
    "recommend": ("recommend", "PATH", "--seq-len", "1K", "--memory-budget", "1GiB"),
    "run": ("run", "--suite", "smoke", "--device", "cpu", "--no-predict", "--out", "PATH"),
    "run, suite": ("run", "--suite", "./PATH.toml"),
}


def said(capsys, *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    captured = capsys.readouterr()
    assert caught.value.code == 2
    # What a run is about to do may stand there already.
    assert captured.out == "" or arguments[0] == "run"
    # So may what it says of a busy machine, on which these tests run side by side.
    lines = captured.err.splitlines(keepends=True)
    told = "".join(line for line in lines if not line.startswith("Warning: "))
    assert told.startswith("Error: ")
    assert told.count("\n") == 1
    return told


@pytest.fixture
def _known_device(monkeypatch):
    """The device is looked at in a worker, which takes seconds to start."""
    found = Description("cpu", record().environment)
    monkeypatch.setattr(LocalExecutor, "describe", lambda self, device: found)


@pytest.mark.usefixtures("_known_device")
@pytest.mark.parametrize("break_it", BROKEN, ids=lambda made: made.__name__)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_could_not_read(
    capsys, tmp_path, monkeypatch, command, break_it
):
    monkeypatch.chdir(tmp_path)
    path = break_it(tmp_path / "broken")
    asked = [part.replace("PATH", str(path)) for part in COMMANDS[command]]
    assert "broken" in said(capsys, *asked)


@pytest.mark.parametrize("command", ["show", "plot", "claims", "export", "check", "baseline"])
def test_a_disk_that_fails_is_said(capsys, tmp_path, monkeypatch, command):
    (tmp_path / RECORDS).write_text(record().model_dump_json() + "\n")

    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        # Imports read files as well.
        if path.name == RECORDS:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.chdir(tmp_path)
    asked = [part.replace("PATH", str(tmp_path)) for part in COMMANDS[command]]
    line = said(capsys, *asked)
    assert f"{tmp_path / RECORDS}: cannot be read (Input/output error)" in line
    assert "expected a file of records" in line


def test_a_folder_that_may_not_be_looked_into_is_said(capsys, tmp_path, monkeypatch):
    def refuse(self: Path, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    line = said(capsys, "show", str(tmp_path))
    assert line == (
        f"Error: {tmp_path}: cannot be read (Permission denied); expected a run's folder or its "
        "records.jsonl\n"
    )


def test_what_no_command_foresaw_is_one_line_too(capsys, monkeypatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    monkeypatch.setattr("reformer_bench.schema.suite.shipped_suites", full)
    assert said(capsys, "suites") == "Error: /somewhere: No space left on device\n"


def test_a_disk_that_is_full_in_the_middle_of_a_run_is_said(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    described = RunInfo(
        suite=find_suite("smoke"),
        device="cpu",
        started_at="2026-01-15T10:00:00Z",
        environment=record().environment,
    )
    with RunWriter(tmp_path / "run", described) as writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"records\.jsonl: cannot be written \(No space"):
            writer.append(record())


CHECKPOINTS = {
    "no folder": lambda folder: None,
    "a file": lambda folder: folder.write_text(""),
    "a link to nowhere": lambda folder: folder.symlink_to(folder.with_name("gone")),
    "config is a folder": lambda folder: (folder / "config.json").mkdir(parents=True),
    "config is no text": lambda folder: write(folder, b"\xff\xfe\x00"),
    "config is no JSON": lambda folder: write(folder, b"{"),
    "config is a list": lambda folder: write(folder, b"[]"),
    "config lacks all": lambda folder: write(folder, b'{"model_type": "reformer"}'),
    "config has wrong types": lambda folder: write(
        folder, b'{"model_type": "reformer", "attn_layers": 3}'
    ),
}


def write(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "config.json").write_bytes(content)


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize(
    "command",
    [
        ("predict", "--seq-len", "64"),
        ("run", "--suite", "peers", "--variants", "reformer", "--device", "cpu"),
    ],
    ids=["predict", "run"],
)
def test_a_checkpoint_that_cannot_be_read_is_said(capsys, tmp_path, make, command):
    folder = tmp_path / "saved"
    make(folder)
    line = said(capsys, *command, "--set", f"model.checkpoint={folder}")
    assert str(folder.resolve()) in line
