"""``reformer-bench show RUN`` prints the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.options import part_of, part_options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reformer_bench.report.export import Table
    from reformer_bench.schema.record import Record
    from reformer_bench.store import Run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@part_options
@click.option("--details", is_flag=True, help="Show everything that was measured, case by case.")
@click.option("--breakdown", is_flag=True, help="Show what the memory at each peak is made of.")
@click.option(
    "--relative-to",
    metavar="VARIANT",
    help="Show figures as multiples of this variant's too (default: the one the suite names).",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print it; CSV and JSON hold bytes and milliseconds.",
)
def show(
    run: Path,
    variants: str | None,
    seq_len: str | None,
    details: bool,
    breakdown: bool,
    relative_to: str | None,
    output_format: str,
) -> None:
    """Show the tables of a run. RUN is its folder or its records file.

    Without options they show the peak memory and the throughput of each variant at each length,
    and why a case has none.
    """
    from reformer_bench.schema.errors import InputError
    from reformer_bench.store import load_run

    if details and breakdown:
        raise InputError("--details and --breakdown: give one of them")
    loaded = load_run(run)
    if not loaded.records:
        raise InputError(f"{run}: the run has no records yet")
    for note in loaded.notes:
        click.echo(note, err=True)
    records = part_of(loaded.records, variants, seq_len)
    baseline = _baseline(loaded, records, relative_to)
    table: Table = "details" if details else "breakdown" if breakdown else "summary"
    if output_format == "table":
        from reformer_bench.cli.console import make_console

        make_console().print(_renderable(records, table, baseline))
    else:
        click.echo(_text(records, table, output_format, baseline), nl=False)


def _baseline(run: Run, records: list[Record], asked: str | None) -> str | None:
    """Return the variant that figures are given as multiples of; None stands for none."""
    from reformer_bench.schema.errors import InputError, did_you_mean

    if asked is None:
        return None if run.info is None else run.info.suite.baseline_variant
    variants = dict.fromkeys(record.case.variant for record in records)
    if asked not in variants:
        raise InputError(
            f"--relative-to: the run has no variant {asked!r}{did_you_mean(asked, variants)} "
            f"(allowed: {', '.join(variants)})"
        )
    return asked


def _renderable(records: list[Record], table: Table, baseline: str | None) -> RenderableType:
    from reformer_bench.report import tables

    if table == "summary":
        return tables.summary_table(records, baseline)
    make = {
        "details": tables.detail_table,
        "breakdown": tables.breakdown_table,
    }
    return make[table](records)


def _text(records: list[Record], table: Table, output_format: str, baseline: str | None) -> str:
    from reformer_bench.report import export

    if output_format == "markdown":
        return export.export_markdown(records, table, baseline)
    make = {
        "csv": export.export_csv,
        "json": export.export_json,
    }
    return make[output_format](records, table)
