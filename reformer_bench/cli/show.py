"""``reformer-bench show RUN`` prints the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.options import (
    format_option,
    open_run,
    part_of,
    part_options,
    run_argument,
)
from reformer_bench.schema.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from reformer_bench.report.export import Table
    from reformer_bench.schema.record import Record
    from reformer_bench.store import Run


@click.command()
@run_argument()
@part_options
@click.option("--details", is_flag=True, help="Show everything that was measured, case by case.")
@click.option("--breakdown", is_flag=True, help="Show what the memory at each peak is made of.")
@click.option("--accuracy", is_flag=True, help="Show each predicted peak beside the measured one.")
@click.option(
    "--relative-to",
    metavar="VARIANT",
    help="Show figures as multiples of this variant's too (default: the one the suite names).",
)
@format_option(
    "table",
    "markdown",
    "csv",
    "json",
    text="How to print it; CSV and JSON hold bytes and milliseconds.",
)
def show(
    run: Path,
    variants: str | None,
    seq_len: str | None,
    details: bool,
    breakdown: bool,
    accuracy: bool,
    relative_to: str | None,
    output_format: str,
) -> None:
    """Show the tables of a run. RUN is its folder or its records file.

    Without options they show the peak memory and the throughput of each variant at each length,
    and why a case has none.
    """
    asked = {"--details": details, "--breakdown": breakdown, "--accuracy": accuracy}
    chosen = [name for name, is_asked in asked.items() if is_asked]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)}: give one of them")
    loaded = open_run(run)
    records = part_of(loaded.records, variants, seq_len)
    if accuracy:
        _accuracy(records, output_format)
        return
    baseline = _baseline(loaded, records, relative_to)
    table: Table = "details" if details else "breakdown" if breakdown else "summary"
    if output_format == "table":
        from reformer_bench.cli.console import make_console
        from reformer_bench.report import tables

        make_console().print(
            tables.detail_table(records)
            if details
            else tables.breakdown_table(records)
            if breakdown
            else tables.summary_table(records, baseline)
        )
        return
    from reformer_bench.report import export

    text = (
        export.export_markdown(records, table, baseline)
        if output_format == "markdown"
        else export.export_csv(records, table)
        if output_format == "csv"
        else export.export_json(records, table)
    )
    click.echo(text, nl=False)


def _accuracy(records: list[Record], output_format: str) -> None:
    """Print each predicted peak beside the measured one."""
    if output_format != "table":
        raise InputError(
            f"--accuracy: has no {output_format}; without --accuracy, --format csv has both peaks"
        )
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.accuracy import accuracy_table, accuracy_words

    words = accuracy_words(records)
    console = make_console()
    console.print(accuracy_table(records))
    for line in words:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _baseline(run: Run, records: list[Record], asked: str | None) -> str | None:
    """Return the variant that figures are given as multiples of; None stands for none."""
    if asked is None:
        return None if run.info is None else run.info.suite.baseline_variant
    variants = dict.fromkeys(record.case.variant for record in records)
    if asked not in variants:
        raise InputError(
            f"--relative-to: the run has no variant {asked!r}{did_you_mean(asked, variants)} "
            f"(allowed: {', '.join(variants)})"
        )
    return asked
