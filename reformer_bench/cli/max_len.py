"""``reformer-bench max-len`` finds the longest sequence that fits, for each model."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli import exits
from reformer_bench.cli.options import Target, cases_of, model_options, target, target_options
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from reformer_bench.cli.predicting import Tell
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.longest import Longest
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Record

_SHORTER = (15 / 16, 7 / 8, 3 / 4, 1 / 2, 1 / 4)
"""Shares of a length that failed, tried in turn."""


@dataclass(frozen=True)
class _Line:
    variant: str
    longest: Longest | None
    record: Record | None = None
    """Of the longest that fits, really run."""
    ran: Record | None = None
    """Of the longest that really ran: that one, or a shorter one where it failed."""


@click.command("max-len")
@model_options
@target_options
@click.option("--limit", default="16M", show_default=True, help="The longest length to try.")
@click.option("--verify", is_flag=True, help="Really run the longest that fits, on this machine.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="JSON is for other programs.",
)
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
    from reformer_bench.cli.predicting import progress_of
    from reformer_bench.run.overrides import preset_names

    fit_in = target(device, memory_budget)
    if fit_in.budget_bytes is None:
        raise InputError("--memory-budget or --device-profile: give what the model is to fit in")
    names = preset_names(options["presets"])
    lines = []
    what = "finding the longest" + (" and running it" if verify else "")
    with progress_of(what, len(names), unit="models") as tell, ExitStack() as stack:
        executor = stack.enter_context(_executor()) if verify else None
        for name in names:
            mine = {**options, "presets": (name,)}
            line = _Line(name, _longest(mine, fit_in, limit, tell))
            lines.append(
                line if executor is None else _verified(line, mine, fit_in, executor, tell)
            )
            tell()
    if output_format == "json":
        click.echo(json.dumps([_row(line, fit_in) for line in lines], indent=2))
    else:
        from reformer_bench.cli.console import make_console

        make_console().print(_table(lines, fit_in, verify))
    failures = [words for line in lines if (words := _failure(line)) is not None]
    for words in failures:
        click.echo(f"Error: {words}", err=True)
    return exits.NOT_VERIFIED if failures else 0


@contextmanager
def _executor() -> Iterator[LocalExecutor]:
    from reformer_bench.run.executors.local import LocalExecutor

    made = LocalExecutor()
    try:
        yield made
    finally:
        made.close()


def _longest(options: dict[str, Any], fit_in: Target, limit: str, tell: Tell) -> Longest | None:
    from reformer_bench.run.longest import longest_that_fits
    from reformer_bench.run.predict import predict_case
    from reformer_bench.schema.units import parse_length

    assert fit_in.budget_bytes is not None
    try:
        most = parse_length(limit)
    except ValueError as error:
        raise InputError(f"--limit: {error}") from None

    @functools.cache
    def peak(length: int) -> int:
        tell(now=f"{options['presets'][0]} at {length:,} tokens")
        case = _case(options, fit_in, length)
        return predict_case(case, profile=fit_in.profile).peak_bytes

    return longest_that_fits(peak, fit_in.budget_bytes, most)


def _case(options: dict[str, Any], fit_in: Target, length: int) -> Case:
    return cases_of(options, str(length), fit_in.profile.kind)[0]


def _verified(
    line: _Line, options: dict[str, Any], fit_in: Target, executor: LocalExecutor, tell: Tell
) -> _Line:
    """The line with the record of its longest sequence, run in a worker as ``run`` does.

    Where that fails, shorter ones are run until one ends.
    """
    from reformer_bench.run.longest import STEP
    from reformer_bench.schema.record import Outcome

    if line.longest is None:
        return line
    longest = line.longest.length
    first = None
    for share in (1.0, *_SHORTER):
        length = longest if share == 1.0 else int(share * longest) // STEP * STEP
        if length < 1:
            break
        tell(now=f"running {line.variant} at {length:,} tokens")
        record = _run(_case(options, fit_in, length), fit_in, executor)
        first = first or record
        if record.outcome is Outcome.OK:
            return _Line(line.variant, line.longest, first, record)
    return _Line(line.variant, line.longest, first)


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


def _failure(line: _Line) -> str | None:
    """What went wrong when the longest sequence was run, in one line; None: nothing."""
    from reformer_bench.report.words import outcome_words
    from reformer_bench.schema.record import Outcome

    record = line.record
    if line.longest is None or record is None or record.outcome is Outcome.OK:
        return None
    ran = (
        "and none shorter that was tried ran"
        if line.ran is None
        else f"the longest that really ran has {line.ran.case.length:,}"
    )
    return (
        f"{line.variant}: {line.longest.length:,} tokens were predicted to fit and did not run "
        f"({outcome_words(record)}: {record.message}); {ran}"
    )


def _row(line: _Line, fit_in: Target) -> dict[str, Any]:
    longest, record = line.longest, line.record
    return {
        "variant": line.variant,
        "device": fit_in.profile.name,
        "budget_bytes": fit_in.budget_bytes,
        "longest": None if longest is None else longest.length,
        "predicted_peak_bytes": None if longest is None else longest.peak_bytes,
        "too_long": None if longest is None else longest.too_long,
        "n_predictions": None if longest is None else longest.n_predictions,
        "outcome": None if record is None else record.outcome.value,
        "measured_peak_bytes": None if record is None else record.memory.peak_bytes,
        "message": None if record is None else record.message,
        "longest_run": None if line.ran is None else line.ran.case.length,
    }


def _table(lines: list[_Line], fit_in: Target, verify: bool) -> Table:
    from rich import box
    from rich.table import Table

    from reformer_bench.schema.units import format_bytes

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"longest sequence in {format_bytes(fit_in.budget_bytes)} ({fit_in.profile.name})",
    )
    table.add_column("variant", no_wrap=True)
    for name in ("longest", "its peak", *(("longest run", "measured peak") if verify else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = ["none fits", "–"]
        if line.longest is not None:
            more = "" if line.longest.too_long is not None else " or more"
            cells = [f"{line.longest.length:,}{more}", format_bytes(line.longest.peak_bytes)]
        if line.record is not None:
            ran = line.ran
            cells += ["none" if ran is None else f"{ran.case.length:,}"]
            cells += [format_bytes(None if ran is None else ran.memory.peak_bytes)]
        table.add_row(line.variant, *cells)
    return table
