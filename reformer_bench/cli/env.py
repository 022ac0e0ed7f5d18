"""``reformer-bench env`` shows where a run would be made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from reformer_bench.run.executor import Description


@click.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="JSON has the environment as records hold it.",
)
def env(device: str, form: str) -> None:
    """Show this machine as a record would describe it: device, memory and versions."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.run.executors.local import LocalExecutor

    executor = LocalExecutor()
    try:
        description = executor.describe(device)
    finally:
        executor.close()
    if form == "json":
        click.echo(json.dumps(description.environment.model_dump(mode="json"), indent=2))
    else:
        make_console().print(_table(description))


def _table(description: Description) -> Table:
    from rich.table import Table

    from reformer_bench.schema.units import format_bytes

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("device", description.device)
    for name, value in description.environment.model_dump(mode="json").items():
        if name.endswith("_bytes"):
            table.add_row(name.removesuffix("_bytes").replace("_", " "), format_bytes(value))
        elif isinstance(value, dict):
            versions = ", ".join(f"{key} {version}" for key, version in value.items())
            table.add_row(name.replace("_", " "), versions or "–")
        else:
            table.add_row(name.replace("_", " "), "–" if value in (None, "") else str(value))
    return table
