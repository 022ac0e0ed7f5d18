"""The store: what is written is read back, and what is damaged is named."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from reformer_bench.schema.errors import InputError
from reformer_bench.schema.prediction import NotPredicted, Prediction
from reformer_bench.schema.record import AllocatorMemory, Outcome, PhasePeak
from reformer_bench.store import (
    PREDICTIONS,
    RECORDS,
    RUN_INFO,
    RunInfo,
    RunWriter,
    load_predictions,
    load_run,
    run_folder_name,
    save_predictions,
)
from tests.builders import case, environment, record_of, suite


def info(**changes: object) -> RunInfo:
    fields = {
        "suite": suite(),
        "device": "cpu",
        "started_at": "2026-01-01T00:00:00+00:00",
        "environment": environment(),
    }
    return RunInfo.model_validate({**fields, **changes})


def write(folder: Path, *lengths: int) -> Path:
    with RunWriter(folder, info()) as writer:
        for length in lengths:
            writer.append(record_of(case(length=length)))
    return folder / RECORDS


def lengths(path: Path) -> list[int]:
    return [record.case.length for record in load_run(path).records]


def test_records_and_info_come_back_equal(tmp_path):
    written = [
        record_of(case(length=64)),
        record_of(case(length=128), Outcome.HOST_OOM, message="no"),
    ]
    with RunWriter(tmp_path, info(memory_budget_bytes=5)) as writer:
        for one in written:
            writer.append(one)
    run = load_run(tmp_path)
    assert run.records == written
    assert run.info == info(memory_budget_bytes=5)
    assert run.info.suite.model_dump(exclude_unset=True) == suite().model_dump(exclude_unset=True)
    assert run.notes == ()


def test_a_record_is_on_disk_before_the_next_one(tmp_path):
    with RunWriter(tmp_path, info()) as writer:
        for n, length in enumerate((32, 64, 128), start=1):
            writer.append(record_of(case(length=length)))
            assert len(load_run(tmp_path).records) == n


def test_the_records_file_alone_is_a_run(tmp_path):
    file = write(tmp_path, 64)
    run = load_run(file)
    assert [r.case.length for r in run.records] == [64]
    assert run.info is None


@pytest.mark.parametrize("n_bytes", [1, 40, 400])
def test_a_torn_last_line_is_passed_over_and_noted(tmp_path, n_bytes):
    file = write(tmp_path, 32, 64)
    whole = record_of(case(length=128)).model_dump_json().encode()
    with file.open("ab") as out:
        out.write(whole[:n_bytes])
    run = load_run(tmp_path)
    assert lengths(file) == [32, 64]
    assert run.notes == (f"{file}:3: the last line is cut short and was passed over",)


def test_writing_goes_on_after_a_torn_line_without_it(tmp_path):
    file = write(tmp_path, 32)
    with file.open("ab") as out:
        out.write(b'{"case_id": "torn')
    write(tmp_path, 64)
    assert lengths(file) == [32, 64]
    assert load_run(tmp_path).notes == ()


def test_a_last_record_that_only_lacks_its_newline_is_kept(tmp_path):
    file = write(tmp_path, 32, 64)
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert lengths(file) == [32, 64]
    write(tmp_path, 128)
    assert lengths(file) == [32, 64, 128]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{oops", "is not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ('{"schema_version": 1}', "'case_id' is missing"),
        ('{"schema_version": 2}', "schema version 2 is newer than the 1 this"),
    ],
    ids=["json", "list", "missing", "newer"],
)
def test_a_corrupt_line_is_named_by_file_and_number(tmp_path, line, words):
    file = write(tmp_path, 32, 64)
    first, second = file.read_text().splitlines()
    file.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(InputError) as caught:
        load_run(tmp_path)
    assert str(caught.value).startswith(f"{file}:2: {words}"), str(caught.value)


def test_a_newer_run_file_is_refused(tmp_path):
    write(tmp_path, 32)
    path = tmp_path / RUN_INFO
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 9}))
    with pytest.raises(InputError, match=r"run\.json: schema version 9 is newer"):
        load_run(tmp_path)


def test_two_writers_are_kept_apart(tmp_path):
    with RunWriter(tmp_path, info()), pytest.raises(InputError, match="another run is writing"):
        RunWriter(tmp_path, info())
    write(tmp_path, 32)


def test_places_that_are_no_run_say_so(tmp_path):
    with pytest.raises(InputError, match="there is no such run"):
        load_run(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no records\.jsonl"):
        load_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        RunWriter(tmp_path / "file" / "run", info())


def test_the_folder_has_suite_utc_time_and_device():
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert run_folder_name("smoke", "cuda:1", at) == "smoke-20260102T010405Z-cuda1"
    assert run_folder_name("smoke", "cpu", at.astimezone(UTC)) == "smoke-20260102T010405Z-cpu"


def test_of_a_case_tried_again_the_last_record_counts_in_the_place_of_the_first(tmp_path):
    first = record_of(case(length=64), Outcome.TIMEOUT)
    again = record_of(case(length=64)).model_copy(update={"attempt": 2})
    between = record_of(case(length=128))
    with RunWriter(tmp_path, info()) as writer:
        for one in (first, between, again):
            writer.append(one)
    assert load_run(tmp_path).records == [again, between]
    assert len((tmp_path / RECORDS).read_text().splitlines()) == 3


def test_predictions_come_back_where_the_environment_is_the_same(tmp_path):
    peak = PhasePeak(phase="forward", allocated_bytes=7)
    known = Prediction(
        AllocatorMemory(source="fake-tensor", cold=(peak,)), 9, places={"loss": {"temporary": 7}}
    )
    here = environment()
    save_predictions(tmp_path, here, {"a": known, "b": NotPredicted("no")})
    assert load_predictions(tmp_path, here) == {"a": known}, "what failed is tried again"
    assert load_predictions(tmp_path, environment(torch_version="9")) == {}
    assert load_predictions(tmp_path / "other", here) == {}
    # As earlier versions wrote it.
    text = (tmp_path / PREDICTIONS).read_text()
    (tmp_path / PREDICTIONS).write_text(text.replace('"flops":9', '"flops":9,"problem":null'))
    assert load_predictions(tmp_path, here) == {"a": known}


def test_damaged_predictions_are_named(tmp_path):
    (tmp_path / PREDICTIONS).write_text('{"schema_version": 1, "cases": 3}')
    with pytest.raises(InputError, match=r"predictions\.json: "):
        load_predictions(tmp_path, environment())
