"""``export``: a run as files that other tools read."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pandas as pd
import pytest

from reformer_bench.cli.main import main
from reformer_bench.report.frames import case_frame
from reformer_bench.schema.record import Outcome
from reformer_bench.store import RECORDS
from tests.builders import record

SAMPLES_MS = [90.0, 100.0, 101.0, 102.0, 103.0, 250.0]
RECORDS_OF_RUN = [
    record(samples_ms=SAMPLES_MS),
    record("transformer", 2048),
    record("transformer", 4096, Outcome.HOST_OOM),
]


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / RECORDS
    path.write_text("".join(found.model_dump_json() + "\n" for found in RECORDS_OF_RUN))
    return path


def export(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["export", *map(str, arguments)])
    return caught.value.code


def test_pytest_benchmark_reads_and_compares_it(run_file, tmp_path):
    out = tmp_path / "0001_run.json"
    assert export(run_file, "--format", "pytest-benchmark", "--out", out) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(out)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reformer[train_step-1024x1]" in done.stdout + done.stderr


def test_its_statistics_are_in_seconds_and_its_memory_in_bytes(run_file, tmp_path):
    out = tmp_path / "run.json"
    assert export(run_file, "--format", "pytest-benchmark", "--out", out) == 0
    first, second = json.loads(out.read_text())["benchmarks"]
    stats = first["stats"]
    assert stats["data"] == [one / 1e3 for one in SAMPLES_MS]
    assert stats["median"] == pytest.approx(0.1015)
    assert stats["stddev"] == pytest.approx(statistics.stdev(SAMPLES_MS) / 1e3)
    assert stats["outliers"] == "1;2"
    assert stats["rounds"] == 6
    assert first["extra_info"]["peak_bytes"] == RECORDS_OF_RUN[0].memory.peak_bytes
    assert second["params"] == {"length": 2048, "batch": 1}


def test_csv_has_a_row_for_each_case_failed_ones_too(run_file, capsys):
    assert export(run_file, "--format", "csv") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert "peak_bytes" in header.split(",")
    assert len(rows) == len(RECORDS_OF_RUN)


def test_parquet_keeps_integers_and_what_is_absent(run_file, tmp_path):
    out = tmp_path / "run.parquet"
    assert export(run_file, "--format", "parquet", "--out", out) == 0
    read = pd.read_parquet(out)
    wanted = case_frame(RECORDS_OF_RUN)
    assert list(read.columns) == list(wanted.columns)
    assert read["peak_bytes"].tolist()[:2] == wanted["peak_bytes"].tolist()[:2]
    assert pd.isna(read["peak_bytes"][2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "parquet"), "say which file to write"),
        (("--format", "html"), "html"),
        (("--format", "csv", "--out", "no/such/folder/x.csv"), "cannot be written"),
    ],
)
def test_wrong_input_is_2(run_file, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert export(run_file, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_timed_steps_has_nothing_for_pytest_benchmark(tmp_path, capsys):
    path = tmp_path / RECORDS
    path.write_text(record(outcome=Outcome.ERROR).model_dump_json() + "\n")
    assert export(path, "--format", "pytest-benchmark") == 2
    assert "no case of the run has timed steps" in capsys.readouterr().err
