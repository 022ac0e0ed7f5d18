"""A fitted table shows every cell whole at any width, in the widest layout that has room."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from reformer_bench.report.fitted import Column, FittedTable, Row

COLUMNS = (
    Column("variant"),
    Column("what", least=12),
    Column("peak", right=True),
    Column("fits", right=True),
)
ROWS = [
    Row(
        ("chunked-reversible-transformer", "as small as it gets, and no smaller", "1.15 GiB", "yes")
    ),
    Row(("chunked-reversible-transformer", "another one", "12.5 MiB", "no")),
    Row((Text("reformer"), "short", "3 MiB", "yes")),
]


def printed(width: int, **options: object) -> list[str]:
    out = io.StringIO()
    table = FittedTable(COLUMNS, ROWS, **options)  # type: ignore[arg-type]
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 90, 80, 60, 45, 30])
def test_nothing_is_cut_and_no_line_is_too_long(width):
    lines = printed(width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert "…" not in text
    for row in ROWS:
        for cell in row.cells[2:]:
            assert str(cell) in text
    words = " ".join(text.split())
    assert words.count("chunked-reversible-transformer") >= 1
    for word in ["as", "small", "as", "it", "gets,", "and", "no", "smaller"]:
        assert word in words


def test_with_room_it_is_one_table_with_a_row_a_line():
    assert [line.split()[0] for line in printed(200)] == [
        "variant",
        "─" * len(printed(200)[1].rstrip()),
        "chunked-reversible-transformer",
        "chunked-reversible-transformer",
        "reformer",
    ]


def test_heads_come_above_their_rows_once_where_there_is_less_room():
    lines = printed(45)
    assert lines[0].split() == ["what", "peak", "fits"]
    assert lines.count("chunked-reversible-transformer") == 1
    assert "  another one" in " ".join(lines)
    assert printed(200, headed=True).count("chunked-reversible-transformer") == 1


def test_figures_carry_their_headers_where_no_table_has_room():
    lines = [line.strip() for line in printed(25)]
    assert "peak 1.15 GiB  fits yes" in lines


def test_heads_are_shown_once_where_that_is_asked_for():
    rows = [line for line in printed(200, once=True) if line.startswith("chunked")]
    assert len(rows) == 1


def test_a_narrower_gap_is_tried_before_the_cells_are_stacked():
    columns = [Column("v"), *(Column("12345678", right=True) for _ in range(7))]
    table = FittedTable(columns, [Row(("name" * 10, *["1.25 MiB"] * 7))])
    # The name beside the figures, then above them, each with two columns between and with one.
    for width, tight in ((110, False), (103, True), (75, False), (66, True)):
        out = io.StringIO()
        Console(file=out, width=width).print(table)
        gaps = "12345678  12345678" in out.getvalue(), "12345678 12345678" in out.getvalue()
        assert gaps == (not tight, tight)
