"""``reformer-bench suites`` lists what comes with the package to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reformer_bench.report.fitted import FittedTable
    from reformer_bench.schema.suite import Suite


@click.command()
def suites() -> None:
    """List the suites: what each measures, for which claim of the paper, and how long it takes."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.schema.suite import shipped_suites

    make_console().print(_table(shipped_suites()))


def _table(found: list[Suite]) -> FittedTable:
    from rich.text import Text

    from reformer_bench.report.fitted import Column, FittedTable, Row

    columns = (
        Column("suite"),
        Column("what it measures", least=36),
        Column("claim", least=22),
        Column("on a CPU", right=True),
        Column("on a GPU", right=True),
    )
    rows = []
    for suite in found:
        minutes = suite.expected_minutes
        cells = (
            Text(suite.name, style="bold"),
            suite.description,
            suite.claim or "–",
            _duration(minutes.get("cpu")),
            _duration(minutes.get("cuda")),
        )
        rows.append(Row(cells))
    return FittedTable(columns, rows)


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:g} min"
