"""``reformer-bench show RUN`` prints the tables of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.explain import explain_options
from reformer_bench.cli.options import (
    format_option,
    open_run,
    part_of,
    part_options,
    run_argument,
)
from reformer_bench.schema.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from reformer_bench.report.explain import Grouping
    from reformer_bench.report.export import Table
    from reformer_bench.schema.explanation import Explanation
    from reformer_bench.schema.record import Record
    from reformer_bench.store import Run


@click.command()
@run_argument()
@part_options
@click.option("--details", is_flag=True, help="Show everything that was measured, case by case.")
@click.option("--breakdown", is_flag=True, help="Show what the memory at each peak is made of.")
@explain_options("Show what fills memory at each predicted peak, and which code made it.")
@click.option(
    "--case",
    "case_id",
    metavar="ID",
    help="With --explain: only this case, by the start of its id.",
)
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
    explain: bool,
    top: int,
    grouping: Grouping,
    case_id: str | None,
    accuracy: bool,
    relative_to: str | None,
    output_format: str,
) -> None:
    """Show the tables of a run. RUN is its folder or its records file.

    Without options they show the peak memory and the throughput of each variant at each length,
    and why a case has none.
    """
    asked = {
        "--details": details,
        "--breakdown": breakdown,
        "--explain": explain,
        "--accuracy": accuracy,
    }
    chosen = [name for name, is_asked in asked.items() if is_asked]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)}: give one of them")
    if case_id is not None and not explain:
        raise InputError("--case: goes with --explain")
    loaded = open_run(run)
    records = part_of(loaded.records, variants, seq_len)
    if explain:
        _explain(records, case_id, grouping, top, output_format)
        return
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
        if table == "summary":
            _print_growth(records)
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


def _print_growth(records: list[Record]) -> None:
    """Print with which powers of the length memory and time grow, where that can be fitted."""
    from reformer_bench.claims.growth import growth_lines
    from reformer_bench.cli.console import make_console

    console = make_console()
    for line in growth_lines(records):
        console.print()
        console.print(line, markup=False)


def _explain(
    records: list[Record], case_id: str | None, grouping: Grouping, top: int, output_format: str
) -> None:
    """Print what fills the predicted peak of each record, or why that isn't known."""
    if output_format not in ("table", "json"):
        raise InputError(f"--explain: has no {output_format} (give --format table or json)")
    if case_id is not None:
        records = [record for record in records if record.case_id.startswith(case_id)]
        if not records:
            raise InputError(f"--case: no case that would be shown has an id from {case_id!r} on")
        if len(records) > 1:
            raise InputError(f"--case: {len(records)} cases have an id from {case_id!r} on")
    found = [(record, *_explanation(record, anew=case_id is not None)) for record in records]
    if output_format == "json":
        import json

        from reformer_bench.report.explain import grouped

        rows = [
            {
                "case_id": record.case_id,
                "outcome": record.outcome,
                "explanation": None if known is None else grouped(known, grouping, top),
                "note": note,
            }
            for record, known, note in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.explain import explained_record

    console = make_console()
    for number, (record, known, note) in enumerate(found):
        if number:
            console.print()
        console.print(explained_record(record, known, note, grouping, top))


def _explanation(record: Record, *, anew: bool) -> tuple[Explanation | None, str | None]:
    """Return a record's explanation, and what is to be said of it or of its absence.

    Where the record has none and ``anew`` is asked for, a model of ours is predicted again; what
    others have written is not run.
    """
    memory, case = record.memory, record.case
    if memory.predicted_explanation is not None:
        return memory.predicted_explanation, None
    why = "no explanation: an older version made the record"
    if memory.predicted_peak_bytes is None:
        why = "no explanation: the case was not predicted when the record was made"
    if case.implementation != "native" or case.checkpoint is not None:
        return None, f"{why}; models of others are not predicted here"
    if not anew:
        return None, f"{why}; --case {record.case_id[:8]} predicts it anew"
    from reformer_bench.run.predict import predict_case

    known = predict_case(case, explain=True)
    note = "predicted anew by this version, because the record keeps no explanation"
    peak = memory.predicted_peak_bytes
    if peak is not None and peak != known.peak_bytes:
        note += f"; the record's own prediction is {peak:,} bytes, this one {known.peak_bytes:,}"
    return known.explanation, note


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
