"""``claims``: its exit codes and formats."""

import json
from pathlib import Path

import pytest

from reformer_bench.cli.main import main
from reformer_bench.schema.record import Record
from tests.builders import as_predicted, record
from tests.claims.paper_data import REFUTING, SUPPORTING


def save(folder: Path, records: list[Record]) -> Path:
    folder.mkdir()
    lines = [one.model_dump_json() + "\n" for one in records]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["claims", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


@pytest.fixture
def supporting(tmp_path) -> Path:
    return save(tmp_path / "supporting", SUPPORTING["depth-free"])


def test_none_refuted_is_exit_code_0_and_a_table(capsys, supporting):
    code, out, _ = run(capsys, supporting)
    assert code == 0
    assert "depth-free" in out
    assert "supported" in out
    assert "not measurable here" in out


def test_one_refuted_is_exit_code_1_whatever_else_holds(capsys, supporting, tmp_path):
    refuting = save(tmp_path / "refuting", REFUTING["chunks that save nothing"][1])
    code, out, _ = run(capsys, supporting, refuting, "--format", "markdown")
    assert code == 1
    assert "| depth-free | supported | section 3, Table 3 |" in out
    assert "| ff-chunks | refuted |" in out


def test_nothing_judged_is_exit_code_4(capsys, tmp_path):
    code, _, err = run(capsys, save(tmp_path / "run", [record()]))
    assert code == 4
    assert err == "Error: no claim could be judged by these runs\n"


def test_json_has_the_points_and_is_strict_json(capsys, supporting):
    code, out, _ = run(capsys, supporting, "--format", "json")
    assert code == 0
    printed = json.loads(out, parse_constant=pytest.fail)
    assert printed["remarks"] == []
    found = {one["id"]: one for one in printed["claims"]}
    assert len(found) == 13
    finding = found["depth-free"]["findings"][0]
    assert [point[0] for point in finding["points"]] == [2, 4, 8, 16]
    assert finding["low"] is None


def test_runs_of_two_devices_are_refused_in_one_line(capsys, supporting, tmp_path):
    other = save(tmp_path / "other", [record(device="cuda")])
    code, _, err = run(capsys, supporting, other)
    assert code == 2
    assert "give one machine's runs" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [({"model": {"n_hashes": 8}}, "n_hashes = 4 in one record and 8"),
     ({"optimizer": "adafactor"}, "optimizer = adam in one record and adafactor")],
)  # fmt: skip
def test_two_models_of_one_variant_are_refused_in_one_line(capsys, tmp_path, change, said):
    runs = [save(tmp_path / "a", [record()]), save(tmp_path / "b", [record(**change)])]
    code, _, err = run(capsys, *runs)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_predictions_for_another_device_may_stand_beside_measurements(capsys, supporting, tmp_path):
    other = save(tmp_path / "other", [as_predicted(record(device="cuda"))])
    code, out, _ = run(capsys, supporting, other)
    assert code == 0
    assert "supported" in out


def test_the_fits_are_drawn_where_asked(capsys, supporting, tmp_path):
    code, _, err = run(capsys, supporting, "--plot", tmp_path / "plots" / "claims.svg")
    assert code == 0
    assert str(tmp_path / "plots" / "claims.svg") in err
    assert (tmp_path / "plots" / "claims.svg").stat().st_size > 10_000


def test_an_unknown_kind_of_plot_is_wrong_input(capsys, supporting):
    code, _, err = run(capsys, supporting, "--plot", "claims.gif")
    assert code == 2
    assert "--plot claims.gif: does not end with .png, .svg, .pdf" in err


def test_a_run_without_records_is_wrong_input(capsys, tmp_path):
    code, _, err = run(capsys, save(tmp_path / "run", []))
    assert code == 2
    assert "no records" in err
