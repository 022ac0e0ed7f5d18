"""``reformer-bench max-len`` finds the longest sequence that fits, for each model."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import (
    Target,
    cases_of,
    format_option,
    model_options,
    models_of,
    target,
    target_options,
)
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.cli.progress import Tell
    from reformer_bench.report.command_tables import LongestLine
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Record

_SHORTER = (15 / 16, 7 / 8, 3 / 4, 1 / 2, 1 / 4)
"""Shares of a length that failed, tried in turn."""


@click.command("max-len")
@model_options
@target_options
@click.option("--limit", default="16M", show_default=True, help="The longest length to try.")
@click.option("--verify", is_flag=True, help="Really run the longest that fits, on this machine.")
@format_option("table", "json", text="JSON is for other programs.")
def max_len(
    device: str | None,
    memory_budget: str | None,
    limit: str,
    verify: bool,
    output_format: str,
    **options: Any,
) -> int:
    """Find the longest sequence that fits a budget, to 0.4%, from predictions.

    With --verify, exits with 1 where one that was to fit doesn't run.
    """
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.run.executors.local import LocalExecutor

    fit_in = target(device, memory_budget)
    if fit_in.budget_bytes is None:
        raise InputError("--memory-budget or --device-profile: give what the model is to fit in")
    names = models_of(options)
    lines = []
    what = "finding the longest" + (" and running it" if verify else "")
    with progress_of(what, len(names), noun="model") as tell, ExitStack() as stack:
        executor = stack.enter_context(closing(LocalExecutor())) if verify else None
        for number in range(len(names)):
            make_case = functools.partial(_case, options, number, fit_in)
            line = _longest(make_case, fit_in, limit, tell)
            if executor is not None and line.length is not None:
                line = _verified(line, line.length, make_case, fit_in, executor, tell)
            lines.append(line)
            tell()
    if output_format == "json":
        click.echo(json.dumps([_row(line, fit_in) for line in lines], indent=2))
    else:
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import longest_table

        console = make_console()
        console.print(
            longest_table(lines, fit_in.profile.name, fit_in.budget_bytes, verified=verify)
        )
        for note in dict.fromkeys(note for line in lines for note in line.notes):
            console.print(f"Note: {note}", style="dim", markup=False)
    failures = [words for line in lines if (words := _failure(line)) is not None]
    for words in failures:
        click.echo(f"Error: {words}", err=True)
    return Exit.NOT_VERIFIED if failures else 0


def _longest(
    make_case: Callable[[int], Case], fit_in: Target, limit: str, tell: Tell
) -> LongestLine:
    from reformer_bench.report.command_tables import LongestLine
    from reformer_bench.run.longest import STEP, longest_that_fits
    from reformer_bench.run.predict import predict_case
    from reformer_bench.schema.units import parse_length

    assert fit_in.budget_bytes is not None
    try:
        most = parse_length(limit)
    except ValueError as error:
        raise InputError(f"--limit: {error}") from None

    name = make_case(STEP).variant

    @functools.cache
    def peak(length: int) -> int:
        tell(now=f"{name} at length {length:,}")
        case = make_case(length)
        return predict_case(case, profile=fit_in.profile).peak_bytes

    found = longest_that_fits(peak, fit_in.budget_bytes, most)
    if found is None:
        return LongestLine(name)
    notes = predict_case(make_case(found.length), profile=fit_in.profile).notes
    return LongestLine(name, **asdict(found), notes=notes)


def _case(options: dict[str, Any], number: int, fit_in: Target, length: int) -> Case:
    """Return the case of a model, by its place among those asked for, at a length."""
    return cases_of(options, str(length), fit_in.profile.kind)[number]


def _verified(
    line: LongestLine,
    longest: int,
    make_case: Callable[[int], Case],
    fit_in: Target,
    executor: LocalExecutor,
    tell: Tell,
) -> LongestLine:
    """Return the line with the record of its longest sequence, run in a worker as ``run`` does.

    Where that fails, shorter ones are run until one ends.
    """
    from reformer_bench.run.longest import STEP

    first = None
    for share in (1.0, *_SHORTER):
        length = longest if share == 1.0 else int(share * longest) // STEP * STEP
        if length < 1:
            break
        tell(now=f"running {line.variant} at length {length:,}")
        record = _run(make_case(length), fit_in, executor)
        first = first or record
        if record.finished:
            return replace(line, record=first, ran=record)
    return replace(line, record=first)


def _run(case: Case, fit_in: Target, executor: LocalExecutor) -> Record:
    from reformer_bench.run.executor import WorkOrder

    found = executor.describe(fit_in.profile.kind)
    order = WorkOrder(
        case=case.model_copy(update={"device": found.device}),
        environment=found.environment,
        timeout_s=3600.0,
        timeout_reason="the time limit of --verify",
        min_samples=1,
        max_samples=1,
        sample_time_s=0.1,
        memory_budget_bytes=fit_in.budget_bytes,
    )
    (record,) = executor.run([order])
    return record


def _failure(line: LongestLine) -> str | None:
    """Say in one line what went wrong when the longest sequence was run; None where it ended."""
    from reformer_bench.report.words import outcome_words

    record = line.record
    if record is None or record.finished:
        return None
    ran = (
        "and none shorter that was tried ran"
        if line.ran is None
        else f"the longest that really ran has {line.ran.case.length:,}"
    )
    return (
        f"{line.variant}: length {line.length:,} was predicted to fit and did not run "
        f"({outcome_words(record)}: {record.message}); {ran}"
    )


def _row(line: LongestLine, fit_in: Target) -> dict[str, Any]:
    record = line.record
    return {
        "variant": line.variant,
        "device": fit_in.profile.name,
        "budget_bytes": fit_in.budget_bytes,
        "longest": line.length,
        "predicted_peak_bytes": line.peak_bytes,
        "too_long": line.too_long,
        "n_predictions": line.n_predictions,
        "notes": list(line.notes),
        "outcome": None if record is None else record.outcome.value,
        "measured_peak_bytes": None if record is None else record.memory.peak_bytes,
        "message": None if record is None else record.message,
        "longest_run": None if line.ran is None else line.ran.case.length,
    }
