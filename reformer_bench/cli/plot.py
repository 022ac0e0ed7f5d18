"""``reformer-bench plot RUN`` draws the figures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import open_run, out_option, part_of, part_options, run_argument
from reformer_bench.schema.errors import InputError


@click.command()
@run_argument()
@out_option("Folder for the files.  [default: the run's folder]")
@click.option(
    "--format",
    "formats",
    default="png,svg",
    show_default=True,
    help="One or more of png, svg and pdf, separated by commas.",
)
@click.option(
    "--quantity",
    type=click.Choice(["memory", "throughput", "both"]),
    default="both",
    show_default=True,
    help="What to draw; both adds an overview.",
)
@part_options
def plot(
    run: Path,
    out: Path | None,
    formats: str,
    quantity: str,
    variants: str | None,
    seq_len: str | None,
) -> int:
    """Draw peak memory and throughput of RUN against what it varies.

    That is the sequence length, and layers, d_ff or hash rounds where the suite varies them; bars
    at a single length; time against memory where every combination of switches was run.

    RUN is a run's folder or its records file. Exits with 4 where no case has anything to draw.
    """
    from reformer_bench.report.plots.files import FORMATS, write_plots

    chosen = list(dict.fromkeys(name.strip().lower() for name in formats.split(",")))
    for name in chosen:
        if name not in FORMATS:
            raise InputError(f"--format: {name!r} is not one of {', '.join(FORMATS)}")
    loaded = open_run(run)
    part = part_of(loaded.records, variants, seq_len)
    folder = loaded.path if loaded.path.is_dir() else loaded.path.parent
    out = folder if out is None else out
    try:
        written = write_plots(part, out, chosen, quantity, loaded.records)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    if not written:
        click.echo(f"{run}: nothing to draw, no case has a figure for {quantity}", err=True)
        return Exit.NOTHING_MEASURED
    for path in written:
        click.echo(str(path))
    return 0
