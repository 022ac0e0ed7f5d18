"""Explanations as tables: sums are the peak, and lines stay readable in a narrow terminal."""

import io
from typing import get_args

import pytest
from rich.console import Console

from reformer_bench.report.explain import (
    Grouping,
    explained_record,
    explanation_table,
    grouped,
    shortened,
)
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.units import MIB
from tests.builders import explanation, record_of

GROUPINGS = get_args(Grouping)
PATH = "a_package/models/transformer/modeling_transformer.py:80"


def printed(thing, width: int = 200) -> str:
    text = io.StringIO()
    Console(width=width, file=text, highlight=False).print(thing)
    return text.getvalue()


def table(grouping="tensor", width=200, top=12) -> str:
    return printed(explanation_table(explanation(), "a model", grouping, top), width)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit_and_files_and_lines_stay_visible(grouping, width):
    shown = table(grouping, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "modeling_transformer.py:80" in shown
    assert "1000 MiB" in shown or "0.977 GiB" in shown


def test_a_wide_terminal_has_a_line_for_each_group():
    rows = table().splitlines()
    (row,) = [row for row in rows if "layers.*.attention" in row]
    assert row.split()[:4] == ["400", "MiB", "40%", "activations"]
    assert "2 × float32 [1, 8, 2560, 2560]" in row
    assert " ".join(row.split()).endswith(f"layers.*.attention: _softmax {PATH}")


def test_the_moment_says_phase_operator_module_and_both_lines():
    shown = table(width=80)
    assert "in the backward phase of a later step" in shown
    assert "_softmax_backward_data, backward of _softmax in layers.1.attention" in shown
    assert f"at {PATH}" in shown
    # Said once, not on every row that it is true of.
    assert shown.count("train.py:12") == 1


def test_optimizer_state_is_told_by_its_name_and_line():
    shown = table()
    assert "layers.*.output.weight[exp_avg]" in shown
    assert "train.py:20" in shown
    assert "zeros_like" not in shown


def test_what_is_not_shown_is_counted():
    last = table(top=1).splitlines()[-1]
    assert last.split() == ["600", "MiB", "60%", "5", "other", "tensors"]


@pytest.mark.parametrize("grouping", ["line", "kind"])
def test_what_is_in_other_groups_is_counted(grouping):
    last = table(grouping, top=1).splitlines()[-1].split()
    assert last[:3] == (["400", "MiB", "40%"] if grouping == "line" else ["600", "MiB", "60%"])
    assert last[3:] == ["4" if grouping == "line" else "5", "other", "tensors"]


def test_layers_have_a_column_for_each_kind():
    rows = [line.split() for line in table("layer").splitlines()]
    (first,) = [row for row in rows if row[:1] == ["layers.0"]]
    (second,) = [row for row in rows if row[:1] == ["layers.1"]]
    sizes = ["100", "MiB", "–", "100", "MiB", "200", "MiB"]
    assert first == ["layers.0", "400", "MiB", "40%", *sizes, "–"]
    assert second == ["layers.1", "600", "MiB", "60%", *sizes, "200", "MiB"]


def test_lines_name_their_operators_and_modules():
    shown = table("line")
    assert "_softmax, _softmax_backward_data in layers.*.attention, layers.1.attention" in shown
    assert "600 MiB" in shown


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("top", [1, 12])
def test_json_adds_up_to_the_peak(grouping, top):
    found = grouped(explanation(), grouping, top)
    rows = found["holders" if grouping == "tensor" else "groups"]
    assert len(rows) <= top
    assert sum(row["held_bytes"] for row in rows) + found.get("rest_bytes", 0) == 1000 * MIB
    assert found["operator"] == "_softmax_backward_data"


def test_a_record_that_ran_out_says_so_and_what_filled_the_device():
    record = record_of(outcome=Outcome.HOST_OOM, message="no memory left")
    shown = printed(explained_record(record, explanation(), None, "kind", 12))
    assert "out of memory" in shown
    assert "no memory left" in shown
    assert "activations" in shown
    without = printed(explained_record(record, None, "it has none", "kind", 12))
    assert without.splitlines()[1:] == ["no memory left", "it has none"]


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (80, "a/bc/def/file.py:12"),
        (19, "a/bc/def/file.py:12"),
        (18, "a/…/def/file.py:12"),
        (17, "a/…/file.py:12"),
        (13, "…/file.py:12"),
        (3, "…/file.py:12"),
    ],
)
def test_paths_lose_their_middle(room, shown):
    assert shortened("a/bc/def/file.py:12", room) == shown


def test_a_file_without_a_folder_is_never_cut():
    assert shortened("train.py:123456", 5) == "train.py:123456"
