"""``reformer-bench validate`` compares predicted with measured memory on random models."""

from __future__ import annotations

import json
import re
from statistics import fmean

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import format_option
from reformer_bench.schema.errors import InputError


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
    "--operators",
    is_flag=True,
    help="Compare instead, operator by operator, what each holds inside with the table of "
    "formulas; exit with 1 where any differs.",
)
@format_option("table", "json", text="JSON is for other programs.")
def validate(
    count: int,
    seed: int,
    threads: int,
    max_error: str | None,
    operators: bool,
    output_format: str,
) -> int:
    """Compare predicted and measured peaks of random small models on this machine's CPU.

    The table has the error of each case; below it are the mean and the largest error, and what the
    peak of the worst case is made of.
    """
    if operators:
        return _operators(threads, output_format)
    bound = None if max_error is None else _share(max_error)
    from reformer_bench.run.validate import compare, random_cases

    found = [compare(case, n_threads=threads) for case in random_cases(count, seed)]
    worst = max(found, key=lambda comparison: comparison.error)
    if output_format == "json":
        document = {
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
        click.echo(json.dumps(document, indent=2))
    else:
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import validation_tables

        console = make_console()
        for part in validation_tables(found, worst):
            console.print(part)
    if bound is not None and worst.error > bound:
        click.echo(f"Error: the worst error, {worst.error:.3%}, is over {max_error}", err=True)
        return Exit.TOO_FAR_OFF
    return 0


def _operators(threads: int, output_format: str) -> int:
    """Compare the table of formulas with this machine."""
    from reformer_bench.run.validate import compare_operators

    found = compare_operators(n_threads=threads)
    wrong = [one for one in found if one.differs]
    n_operators = len({one.operator for one in found})
    if output_format == "json":
        document = {
            "threads": threads,
            "operators": n_operators,
            "samples": len(found),
            "different": [
                {
                    "operator": one.operator,
                    "arguments": one.arguments,
                    "expected_bytes": one.expected_bytes,
                    "measured_bytes": one.measured_bytes,
                }
                for one in wrong
            ],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import operators_table

        console = make_console()
        for part in operators_table(wrong, n_operators, len(found)):
            console.print(part)
    return Exit.TOO_FAR_OFF if wrong else 0


def _share(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise InputError(f"--max-error: {text!r} is not a percentage, for example 1%")
    return float(match[1]) / 100
