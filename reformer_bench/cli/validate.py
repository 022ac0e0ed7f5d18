"""``reformer-bench validate`` compares predicted with measured memory on random models."""

from __future__ import annotations

import json
import re
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from reformer_bench.run.validate import Comparison

EXIT_TOO_FAR_OFF = 1


@click.command()
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="How many models to compare.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Another seed draws other models.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="PyTorch's threads. Operators keep a buffer for each, so they change the peak.",
)
@click.option(
    "--max-error",
    metavar="PERCENT",
    help="Exit with 1 when a prediction is off by more, e.g. 1%.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="JSON is for other programs.",
)
def validate(count: int, seed: int, threads: int, max_error: str | None, output_format: str) -> int:
    """Compare predicted and measured peaks of random small models on this machine's CPU.

    The table has the error of each case; below it are the mean and the largest error, and what the
    peak of the worst case is made of.
    """
    bound = None if max_error is None else _share(max_error)
    from reformer_bench.run.validate import compare, random_cases

    found = [compare(case, n_threads=threads) for case in random_cases(count, seed)]
    worst = max(found, key=lambda comparison: comparison.error)
    if output_format == "json":
        click.echo(json.dumps(_document(found, worst), indent=2))
    else:
        from reformer_bench.cli.console import make_console

        _print(found, worst, make_console())
    if bound is not None and worst.error > bound:
        click.echo(f"Error: the worst error, {worst.error:.3%}, is over {max_error}", err=True)
        return EXIT_TOO_FAR_OFF
    return 0


def _share(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise InputError(f"--max-error: {text!r} is not a percentage, for example 1%")
    return float(match[1]) / 100


def _document(found: list[Comparison], worst: Comparison) -> dict[str, Any]:
    return {
        "mean_error": fmean(comparison.error for comparison in found),
        "worst_error": worst.error,
        "worst_case": worst.case.id,
        "cases": [
            {
                "case": comparison.case.model_dump(mode="json"),
                "error_bytes": comparison.error_bytes,
                "predicted": comparison.predicted.model_dump(mode="json"),
                "measured": comparison.measured.model_dump(mode="json"),
            }
            for comparison in found
        ],
    }


def _print(found: list[Comparison], worst: Comparison, console: Console) -> None:
    from reformer_bench.report.fitted import Column, FittedTable, Row
    from reformer_bench.schema.units import format_bytes

    numbers = ("length", "batch", "measured", "predicted", "off by")
    columns = [Column("case"), Column("model"), *(Column(name, right=True) for name in numbers)]
    rows = []
    for comparison in found:
        case = comparison.case
        cells = (
            case.id,
            f"{case.workload}, {'+'.join(case.model.attention)}, {case.model.residual.value}",
            f"{case.length:,}",
            str(case.batch),
            format_bytes(comparison.measured.peak_allocated_bytes),
            format_bytes(comparison.predicted.peak_allocated_bytes),
            f"{comparison.error_bytes:+,} B" if comparison.error_bytes else "0",
        )
        rows.append(Row(cells))
    console.print(FittedTable(columns, rows, heads=2))
    exact = sum(comparison.error_bytes == 0 for comparison in found)
    console.print(
        f"{exact} of {len(found)} equal to the byte; mean error "
        f"{fmean(comparison.error for comparison in found):.4%}, worst {worst.error:.4%}"
    )
    console.print(_breakdowns(worst))


def _breakdowns(worst: Comparison) -> RenderableType:
    from reformer_bench.report.fitted import Column, FittedTable, Row
    from reformer_bench.schema.units import format_bytes

    measured, predicted = worst.measured.breakdown, worst.predicted.breakdown
    rows = []
    for name, count in {} if measured is None else measured.model_dump().items():
        guess = getattr(predicted, name, None)
        off_by = "–" if guess is None else f"{guess - count:+,} B" if guess != count else "0"
        part = name.removesuffix("_bytes")
        rows.append(Row((part, format_bytes(count), format_bytes(guess), off_by)))
    numbers = ("measured", "predicted", "off by")
    columns = [Column("at the peak"), *(Column(name, right=True) for name in numbers)]
    return FittedTable(columns, rows, title=f"worst case: {worst.case.id}")
