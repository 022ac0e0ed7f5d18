"""``reformer-bench max-len`` finds the longest sequence that fits, for each model."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.model_options import (
    Target,
    cases_of,
    model_options,
    target,
    target_options,
)
from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from reformer_bench.run.longest import Longest
    from reformer_bench.spec.case import Case
    from reformer_bench.spec.record import Record


@dataclass(frozen=True)
class _Line:
    variant: str
    longest: Longest | None
    record: Record | None = None
    """Of the longest that fits, really run."""


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
) -> None:
    """Find the longest sequence whose predicted peak fits, to within 0.4% of its length."""
    from reformer_bench.run.adhoc import preset_names

    fit_in = target(device, memory_budget)
    if fit_in.budget_bytes is None:
        raise InputError(
            "--memory-budget or --device-profile: one must say what the model is to fit in"
        )
    lines = []
    for name in preset_names(options["presets"]):
        line = _Line(name, _longest({**options, "presets": (name,)}, fit_in, limit))
        lines.append(_verified(line, options, fit_in) if verify else line)
    if output_format == "json":
        click.echo(json.dumps([_row(line, fit_in) for line in lines], indent=2))
        return
    from reformer_bench.cli.console import make_console

    make_console().print(_table(lines, fit_in, verify))


def _longest(options: dict[str, Any], fit_in: Target, limit: str) -> Longest | None:
    from reformer_bench.run.longest import longest_that_fits
    from reformer_bench.run.predict import predict_case
    from reformer_bench.spec.units import parse_length

    assert fit_in.budget_bytes is not None
    try:
        most = parse_length(limit)
    except ValueError as error:
        raise InputError(f"--limit: {error}") from None

    @functools.cache
    def peak(length: int) -> int:
        case = _case(options, fit_in, length)
        return predict_case(case, profile=fit_in.profile).peak_bytes

    return longest_that_fits(peak, fit_in.budget_bytes, most)


def _case(options: dict[str, Any], fit_in: Target, length: int) -> Case:
    return cases_of(options, str(length), fit_in.profile.kind)[0]


def _verified(line: _Line, options: dict[str, Any], fit_in: Target) -> _Line:
    """Return the line with the record of its longest sequence, run in a worker as ``run`` does."""
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.order import WorkOrder

    if line.longest is None:
        return line
    case = _case({**options, "presets": (line.variant,)}, fit_in, line.longest.length)
    executor = LocalExecutor()
    try:
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
    finally:
        executor.close()
    return _Line(line.variant, line.longest, record)


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
    }


def _table(lines: list[_Line], fit_in: Target, verify: bool) -> Table:
    from rich import box
    from rich.table import Table

    from reformer_bench.spec.units import format_bytes

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"longest sequence in {format_bytes(fit_in.budget_bytes)} ({fit_in.profile.name})",
    )
    table.add_column("variant", no_wrap=True)
    for name in ("longest", "its peak", *(("outcome", "measured peak") if verify else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = ["none fits", "–"]
        if line.longest is not None:
            more = "" if line.longest.too_long is not None else " or more"
            cells = [f"{line.longest.length:,}{more}", format_bytes(line.longest.peak_bytes)]
        if line.record is not None:
            cells += [line.record.outcome.value, format_bytes(line.record.memory.peak_bytes)]
        table.add_row(line.variant, *cells)
    return table
