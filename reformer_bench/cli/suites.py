"""``reformer-bench suites`` lists what comes with the package to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from reformer_bench.spec.suite import Suite


@click.command()
def suites() -> None:
    """List the suites: what each measures, for which claim of the paper, and how long it takes."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.spec.suite import shipped_suites

    make_console().print(_table(shipped_suites()))


def _table(found: list[Suite]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("suite", no_wrap=True, style="bold")
    table.add_column("what it measures")
    table.add_column("claim")
    table.add_column("on a CPU", justify="right", no_wrap=True)
    table.add_column("on a GPU", justify="right", no_wrap=True)
    for suite in found:
        minutes = suite.expected_minutes
        table.add_row(
            suite.name,
            suite.description,
            suite.claim or "–",
            _duration(minutes.get("cpu")),
            _duration(minutes.get("cuda")),
        )
    return table


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:g} min"
