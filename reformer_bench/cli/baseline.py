"""``reformer-bench baseline RUN`` keeps a run's figures, for later runs to be checked against."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, for example results/baselines/ci.json.",
)
def baseline(run: Path, out: Path) -> int:
    """Write the figures of a run into a file that later runs are checked against.

    RUN is the run's folder or its records file. A file that is already there is replaced.
    """
    from reformer_bench.cli.exits import Exit
    from reformer_bench.schema.baseline import baseline_of
    from reformer_bench.schema.errors import InputError
    from reformer_bench.schema.units import counted
    from reformer_bench.store import load_run, save_baseline

    records = load_run(run).records
    if not any(record.finished for record in records):
        click.echo(f"Error: {run}: no case finished, so there is nothing to keep", err=True)
        return Exit.NOTHING_MEASURED
    try:
        kept = baseline_of(records)
    except InputError as error:
        raise InputError(f"{run}: {error}") from None
    save_baseline(out, kept)
    click.echo(f"{out}: {counted(len(kept.cases), 'case')}")
    return 0
