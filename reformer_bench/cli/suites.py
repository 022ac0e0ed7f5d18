"""``reformer-bench suites`` lists what comes with the package to be measured."""

from __future__ import annotations

import click


@click.command()
def suites() -> None:
    """List the suites: what each measures, for which claim of the paper, and how long it takes."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.command_tables import suites_table
    from reformer_bench.schema.suite import shipped_suites

    make_console().print(suites_table(shipped_suites()))
