"""``reformer-bench env`` shows where a run would be made."""

from __future__ import annotations

import json
from contextlib import closing

import click

from reformer_bench.cli.options import device_option, format_option


@click.command()
@device_option("auto, cpu, cuda or cuda:N.")
@format_option("table", "json", text="JSON has the environment as records hold it.")
def env(device: str, output_format: str) -> None:
    """Show this machine as a record would describe it: device, memory and versions."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.command_tables import environment_table
    from reformer_bench.run.executors.local import LocalExecutor

    with closing(LocalExecutor()) as executor:
        found = executor.describe(device)
    if output_format == "json":
        click.echo(json.dumps(found.environment.model_dump(mode="json"), indent=2))
    else:
        make_console().print(environment_table(found.device, found.environment))
