"""The only reader and writer of result files: of run folders and of baselines."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from reformer_bench.schema.baseline import BASELINE_VERSION, Baseline
from reformer_bench.schema.errors import InputError, read_text, reading, validated, writing
from reformer_bench.schema.prediction import Prediction, Predictions
from reformer_bench.schema.record import (
    SCHEMA_VERSION,
    Environment,
    Record,
    latest_of_each,
    utc_now,
)
from reformer_bench.schema.suite import Suite

RECORDS = "records.jsonl"
RUN_INFO = "run.json"
PREDICTIONS = "predictions.json"
_OURS = "what `reformer-bench run` wrote"


class RunInfo(BaseModel):
    """What a run was asked to do, and where: the content of run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    suite: Suite
    """The suite as it was run, with everything that the command line changed."""
    device: str
    memory_budget_bytes: int | None = None
    command: tuple[str, ...] = ()
    started_at: str
    """When the run began, in ISO 8601, UTC."""
    environment: Environment

    @classmethod
    def begun(
        cls,
        suite: Suite,
        device: str,
        environment: Environment,
        memory_budget_bytes: int | None = None,
    ) -> RunInfo:
        """Return what is said of a run that this process begins now."""
        return cls(
            suite=suite,
            device=device,
            memory_budget_bytes=memory_budget_bytes,
            command=("reformer-bench", *sys.argv[1:]),
            started_at=utc_now(),
            environment=environment,
        )


@dataclass(frozen=True)
class Run:
    """A run as it was read back."""

    path: Path
    """The folder, or the records file that it was read from."""
    records: list[Record]
    info: RunInfo | None = None
    """None where only a records file was given, or a folder without run.json."""
    notes: tuple[str, ...] = ()
    """What the reader had to pass over, a line for each."""


def run_folder_name(suite: str, device: str, at: datetime | None = None) -> str:
    """Return ``<suite>-<UTC time>-<device>``, which is safe as a file name everywhere."""
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    return f"{suite}-{moment:%Y%m%dT%H%M%SZ}-{device.replace(':', '')}"


def load_run(path: Path | str) -> Run:
    """Load a run from its folder or from a records file.

    Of a case that was tried again the last record counts. A last line that is cut short (the
    writer was killed) is passed over and noted. Raises InputError where a path can't be read, and
    naming file and line where a line is corrupt or of a newer schema.
    """
    path = Path(path)
    expected = f"a run's folder or its {RECORDS}"
    with reading(path, expected):
        if not os.path.lexists(path):
            raise InputError(f"{path}: there is no such run (give its folder or its {RECORDS})")
        # Follows links, so that one to nowhere is said to be one.
        if stat.S_ISDIR(path.stat().st_mode):
            file = path / RECORDS
            if not os.path.lexists(file):
                raise InputError(f"{path}: holds no {RECORDS}, so it is not a run folder")
            info = _load_info(path / RUN_INFO) if os.path.lexists(path / RUN_INFO) else None
        else:
            file, info = path, None
    with reading(file, f"a file of records, as {RECORDS} is"):
        content = file.read_bytes()
    records, notes = _records(content, file)
    return Run(path=path, records=latest_of_each(records), info=info, notes=notes)


def _load_info(file: Path) -> RunInfo:
    return validated(RunInfo, _parse(read_text(file, _OURS), str(file)), where=str(file))


class _KeptPredictions(BaseModel):
    """The content of predictions.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    environment: Environment
    """Which the predictions hold for."""
    cases: dict[str, Prediction]


def save_predictions(folder: Path, environment: Environment, predictions: Predictions) -> None:
    """Keep a run's predictions beside its records, so that continuing it needs no new ones."""
    known = {key: found for key, found in predictions.items() if isinstance(found, Prediction)}
    kept = _KeptPredictions(environment=environment, cases=known)
    _write_whole(folder / PREDICTIONS, kept.model_dump_json())


def load_predictions(folder: Path, environment: Environment) -> dict[str, Prediction]:
    """Load a run's predictions by case id; none where none were kept, or in another environment.

    Raises InputError where the file can't be understood.
    """
    file = folder / PREDICTIONS
    if not file.is_file():
        return {}
    data = _parse(read_text(file, _OURS), str(file))
    kept = validated(_KeptPredictions, data, where=str(file))
    return kept.cases if kept.environment == environment else {}


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON with one case a line, so that a change of one is one line of diff.

    Raises InputError where the file can't be written.
    """
    data = baseline.model_dump(mode="json", exclude_none=True)
    data["environment"] = baseline.environment.model_dump(mode="json")
    head, cases = json.dumps({k: v for k, v in data.items() if k != "cases"}), data["cases"]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, f'{head[:-1]}, "cases": [\n{lines}\n]}}')


def save_snapshot(path: Path, snapshot: dict[str, Any]) -> None:
    """Write a memory snapshot as PyTorch's viewer reads it: pickled, by the newest protocol that
    it knows.

    Raises InputError where the file can't be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(snapshot, protocol=4))


def load_baseline(path: Path) -> list[Record]:
    """Load the records of a baseline file, or of a run.

    Raises InputError where there is none, or it is corrupt or of a newer version.
    """
    expected = "a file that `reformer-bench baseline` wrote, or a run"
    with reading(path, expected):
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    if is_folder or path.suffix == ".jsonl":
        return load_run(path).records
    text = read_text(path, expected)
    data = _parse(text, str(path))
    _check_version(data, "baseline", BASELINE_VERSION, str(path))
    return validated(Baseline, data, where=str(path)).records()


def _records(content: bytes, file: Path) -> tuple[list[Record], tuple[str, ...]]:
    records: list[Record] = []
    notes: list[str] = []
    lines = content.split(b"\n")
    torn = lines.pop()  # What follows the last newline: nothing, unless the writer was killed.
    for number, line in enumerate(lines, start=1):
        if line.strip():
            records.append(_record(line, f"{file}:{number}"))
    if torn.strip():
        where = f"{file}:{len(lines) + 1}"
        try:
            records.append(_record(torn, where))
        except InputError:
            notes.append(f"{where}: the last line is cut short and was passed over")
    return records, tuple(notes)


def _record(line: bytes, where: str) -> Record:
    return validated(Record, _parse(line.decode("utf-8", errors="replace"), where), where=where)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: is not JSON ({error})") from None
    except RecursionError:
        raise InputError(f"{where}: is JSON nested too deeply for a record") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(data).__name__}")
    _check_version(data, "schema", SCHEMA_VERSION, where)
    return data


def _check_version(data: dict[str, Any], what: str, newest: int, where: str) -> None:
    version = data.get(f"{what}_version")
    if isinstance(version, int) and version > newest:
        raise InputError(
            f"{where}: {what} version {version} is newer than the {newest} this "
            "reformer-bench reads: upgrade it"
        )


class RunWriter:
    """Appends records to a run folder; each is on disk when ``append`` returns."""

    def __init__(self, folder: Path, info: RunInfo) -> None:
        """Open a folder for a run, new or to be continued, and keep other writers out.

        Raises InputError where the folder can't be written or another process writes to it.
        """
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / RECORDS).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{folder}: another run is writing there") from None
        with writing(folder):
            _mend_tail(self._file)
            if not (folder / RUN_INFO).is_file():
                data = info.model_dump(mode="json")
                # A table of a suite must keep which of its fields were set.
                data["suite"] = info.suite.model_dump(mode="json", exclude_unset=True)
                _write_whole(folder / RUN_INFO, json.dumps(data, indent=2, ensure_ascii=False))

    def append(self, record: Record) -> None:
        """Write one record, flushed and synced. InputError where the disk refuses."""
        with writing(self.folder / RECORDS):
            self._file.write(record.model_dump_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let other writers in."""
        self._file.close()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mend_tail(file: BinaryIO) -> None:
    """Cut off a torn last line, so that the next record starts a line of its own."""
    file.seek(0)
    text = file.read()
    tail = text.rpartition(b"\n")[2]
    if not tail:
        return
    try:
        _record(tail, "")
    except InputError:
        file.truncate(len(text) - len(tail))
    else:
        file.write(b"\n")


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none."""
    partial = path.with_suffix(path.suffix + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
