"""``reformer-bench validate`` compares predicted with measured memory, on random models or on
one's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import (
    cases_of,
    format_option,
    model_options,
    models_of,
    seq_len_option,
)
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.run.comparison import Comparison
    from reformer_bench.run.confirm import Compared, NotCompared
    from reformer_bench.schema.case import Case

_SHARE_OF_FREE_MEMORY = 1 / 4


@click.command()
@model_options
@seq_len_option(
    "With a model: the lengths (default: every doubling from 64, as memory and time allow)."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="With a model: for all of its lengths.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Without a model: how many random ones to compare.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Without a model: another seed draws other models.",
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
@click.option(
    "--operator",
    "names",
    multiple=True,
    metavar="NAME",
    help="With --operators: only this one, e.g. cumsum. Repeatable.",
)
@format_option("table", "json", text="JSON is for other programs.")
def validate(
    seq_len: str | None,
    time_limit: float,
    count: int,
    seed: int,
    threads: int,
    max_error: str | None,
    operators: bool,
    names: tuple[str, ...],
    output_format: str,
    **options: Any,
) -> int:
    """Compare predicted and measured peaks on this machine's CPU.

    With --model or --preset: of that model, at lengths that fit, each in a process of its own; the
    last line says up to which length its prediction is confirmed. Without: of random small models
    of this package. The table has the error of each case; below it are the mean and the largest
    error, and what the peak of the worst case is made of.
    """
    if operators:
        return _operators(names, threads, output_format)
    if names:
        raise InputError("--operator: needs --operators")
    bound = None if max_error is None else _share(max_error)
    lines: list[str] = []
    left_out: list[NotCompared] = []
    if options["presets"] or options["targets"]:
        found, left_out, lines = _own(options, seq_len, time_limit, threads, bound)
    else:
        _check_unused(options, seq_len)
        from reformer_bench.run.validate import compare, random_cases

        found = [compare(case, n_threads=threads) for case in random_cases(count, seed)]
    worst = max(found, key=lambda comparison: comparison.error, default=None)
    if output_format == "json":
        click.echo(json.dumps(_document(found, worst, left_out, lines), indent=2))
    else:
        _print(found, worst, left_out, lines)
    if worst is None:
        click.echo("Error: nothing was measured", err=True)
        return Exit.NOTHING_MEASURED
    if bound is not None and worst.error > bound:
        click.echo(f"Error: the worst error, {worst.error:.3%}, is over {max_error}", err=True)
        return Exit.TOO_FAR_OFF
    return 0


def _operators(names: Sequence[str], threads: int, output_format: str) -> int:
    """Compare the table of formulas with this machine."""
    from reformer_bench.run.validate import compare_operators

    found = compare_operators(names, n_threads=threads)
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


def _check_unused(options: dict[str, Any], seq_len: str | None) -> None:
    for option, given in (("--set", options["settings"]), ("--seq-len", seq_len)):
        if given:
            raise InputError(f"{option}: needs --model or --preset; random models draw their own")


def _own(
    options: dict[str, Any],
    seq_len: str | None,
    time_s: float,
    n_threads: int,
    bound: float | None,
) -> tuple[list[Comparison], list[NotCompared], list[str]]:
    """Compare each of the user's models; return what was compared, what wasn't, and a sentence
    about each.
    """
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.run.comparison import Comparison
    from reformer_bench.run.confirm import NotCompared, compare_lengths, sentence
    from reformer_bench.run.limits import free_bytes

    share = 1.0 if seq_len is not None else _SHARE_OF_FREE_MEMORY
    everything: list[Compared] = []
    lines = []
    names = models_of(options)
    with progress_of("comparing", len(names), noun="model") as tell:
        for number in range(len(names)):
            found: list[Compared] = []
            for one in compare_lengths(
                _cases(options, number, seq_len),
                n_threads=n_threads,
                memory_bytes=int(share * free_bytes()),
                time_s=time_s,
                stop_at_limits=seq_len is None,
            ):
                found.append(one)
                tell(now=f"{one.case.variant} at length {one.case.length:,}")
            everything += found
            if found:
                lines.append(f"{found[0].case.variant}: {sentence(found, bound or 0.0)}")
            tell()
    compared = [one for one in everything if isinstance(one, Comparison)]
    return compared, [one for one in everything if isinstance(one, NotCompared)], lines


def _cases(options: dict[str, Any], number: int, seq_len: str | None) -> Iterator[Case]:
    """Yield the cases of one of the models by its place, from the shortest on."""
    from reformer_bench.run.confirm import doublings

    if seq_len is None:
        for length in doublings():
            yield cases_of(options, str(length), "cpu")[number]
        return
    cases = cases_of(options, seq_len, "cpu")
    names = list(dict.fromkeys(case.variant for case in cases))
    yield from (case for case in cases if case.variant == names[number])


def _document(
    found: Sequence[Comparison],
    worst: Comparison | None,
    left_out: Sequence[NotCompared],
    lines: Sequence[str],
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "mean_error": fmean(one.error for one in found) if found else None,
        "worst_error": None if worst is None else worst.error,
        "worst_case": None if worst is None else worst.case.id,
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
    if lines or left_out:
        document["found"] = list(lines)
        document["not_compared"] = [
            {"case": one.case.model_dump(mode="json"), "reason": one.reason} for one in left_out
        ]
    return document


def _print(
    found: Sequence[Comparison],
    worst: Comparison | None,
    left_out: Sequence[NotCompared],
    lines: Sequence[str],
) -> None:
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.command_tables import validation_tables

    console = make_console()
    for part in validation_tables(found, worst) if worst is not None else ():
        console.print(part)
    for one in left_out:
        words = f"{one.case.variant} at {one.case.length:,}: not compared: {one.reason}"
        console.print(words, markup=False)
    for line in lines:
        console.print(line, markup=False)


def _share(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise InputError(f"--max-error: {text!r} is not a percentage, for example 1%")
    return float(match[1]) / 100
