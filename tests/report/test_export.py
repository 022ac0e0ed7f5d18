import csv
import io
import json
from typing import Literal

import pytest

from reformer_bench.report.export import export_csv, export_json, export_markdown
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.units import MIB
from tests.builders import record, sweep

TABLES: tuple[Literal["summary", "details", "breakdown"], ...] = ("summary", "details", "breakdown")


@pytest.mark.parametrize("table", TABLES)
def test_json_and_csv_hold_the_same_cases(
    table: Literal["summary", "details", "breakdown"],
) -> None:
    records = sweep("cuda")
    from_json = json.loads(export_json(records, table))
    from_csv = list(csv.DictReader(io.StringIO(export_csv(records, table))))
    assert [row["case_id"] for row in from_json] == [row["case_id"] for row in from_csv]


def test_bytes_are_exact_and_absent_is_null() -> None:
    records = [record(peak=217 * MIB + 1), record(length=2048, outcome=Outcome.DEVICE_OOM)]
    done, failed = json.loads(export_json(records, "summary"))
    assert done["peak_bytes"] == 217 * MIB + 1
    assert failed["peak_bytes"] is None
    assert failed["outcome"] == "device-oom"
    assert f",{217 * MIB + 1}," in export_csv(records, "summary")


@pytest.mark.parametrize("table", TABLES)
def test_markdown_tables_are_rectangular(
    table: Literal["summary", "details", "breakdown"],
) -> None:
    records = [*sweep(), record("transformer", 64, Outcome.ERROR, message="a | b")]
    blocks = [b.splitlines() for b in export_markdown(records, table).split("\n\n") if b[0] == "|"]
    assert blocks
    for lines in blocks:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_markdown_marks_the_best() -> None:
    records = [record("transformer", peak=300 * MIB), record("reformer", peak=100 * MIB)]
    assert "| 1K | 300 MiB | **100 MiB** |" in export_markdown(records, "summary")


@pytest.mark.parametrize("table", TABLES)
def test_no_records_are_no_error(table: Literal["summary", "details", "breakdown"]) -> None:
    assert json.loads(export_json([], table)) == []
    export_csv([], table)
    export_markdown([], table)
