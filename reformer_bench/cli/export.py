"""``reformer-bench export RUN`` writes a run as a file that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.options import format_option, out_option, run_argument
from reformer_bench.schema.errors import InputError, writing

if TYPE_CHECKING:
    from reformer_bench.store import Run


@click.command()
@run_argument()
@format_option(
    "pytest-benchmark",
    "csv",
    "parquet",
    text="CSV and Parquet have a row for each case, in bytes and milliseconds.",
    required=True,
)
@out_option("The file to write (default: standard output; Parquet needs a file).", folder=False)
def export(run: Path, output_format: str, out: Path | None) -> None:
    """Write a run in another tool's format. RUN is its folder or its records file."""
    from reformer_bench.store import load_run

    loaded = load_run(run)
    if not loaded.records:
        raise InputError(f"{run}: the run has no records yet")
    if output_format == "parquet":
        _write_parquet(loaded, out)
        return
    text = _text(loaded, output_format)
    if out is None:
        click.echo(text, nl=False)
        return
    with writing(out, "--out"):
        out.write_text(text, encoding="utf-8")


def _text(run: Run, output_format: str) -> str:
    if output_format == "csv":
        from reformer_bench.report.export import export_csv

        return export_csv(run.records, "details")
    from reformer_bench.report.export import export_pytest_benchmark

    try:
        return export_pytest_benchmark(run.records, run.path.name)
    except ValueError as error:
        raise InputError(f"{run.path}: {error}, so there is nothing for pytest-benchmark") from None


def _write_parquet(run: Run, out: Path | None) -> None:
    from reformer_bench.report.frames import case_frame

    if out is None:
        raise InputError("--out: Parquet is not text: say which file to write")
    try:
        with writing(out, "--out"):
            case_frame(run.records).to_parquet(out, index=False)
    except ImportError:
        raise InputError("--format parquet needs pyarrow: pip install pyarrow") from None
