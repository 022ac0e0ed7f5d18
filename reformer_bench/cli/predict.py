"""``reformer-bench predict`` says what a model would take, without running it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.options import Target, cases_of, model_options, target, target_options

if TYPE_CHECKING:
    from reformer_bench.report.fitted import FittedTable
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Prediction

_PARTS = ("parameters", "gradients", "optimizer", "activations", "temporaries")


@dataclass(frozen=True)
class _Line:
    case: Case
    prediction: Prediction


@click.command()
@model_options
@click.option(
    "--seq-len",
    default="1K,4K,16K,64K",
    show_default=True,
    metavar="LENGTHS",
    help="Sequence lengths, e.g. 512,1024 or 512..64K (every doubling).",
)
@target_options
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="JSON and CSV hold bytes and FLOPs.",
)
def predict(
    seq_len: str, device: str | None, memory_budget: str | None, output_format: str, **options: Any
) -> None:
    """Predict the peak memory and the FLOPs of a step, without running it.

    The model's real code runs on tensors that hold no memory, so that any length can be predicted
    for any device.
    """
    fit_in = target(device, memory_budget)
    cases = cases_of(options, seq_len, fit_in.profile.kind)
    from reformer_bench.cli.predicting import progress_of
    from reformer_bench.schema.units import format_tokens

    lines = []
    with progress_of("predicting", len(cases)) as tell:
        from reformer_bench.run.predict import predict_case

        for case in cases:
            tell(now=f"{case.variant} at {format_tokens(case.length)} tokens")
            lines.append(_Line(case, predict_case(case, profile=fit_in.profile)))
            tell()
    if output_format == "table":
        from reformer_bench.cli.console import make_console

        make_console().print(_table(lines, fit_in))
    elif output_format == "json":
        click.echo(json.dumps([_row(line, fit_in) for line in lines], indent=2))
    else:
        click.echo(_csv([_row(line, fit_in) for line in lines]), nl=False)


def _row(line: _Line, fit_in: Target) -> dict[str, Any]:
    parts = line.prediction.breakdown.model_dump()
    return {
        "variant": line.case.variant,
        "workload": line.case.workload,
        "batch": line.case.batch,
        "length": line.case.length,
        "device": fit_in.profile.name,
        "peak_bytes": line.prediction.peak_bytes,
        "breakdown_phase": line.prediction.memory.breakdown_phase,
        **parts,
        "budget_bytes": fit_in.budget_bytes,
        "fits": _fits(line, fit_in),
        "flops": line.prediction.flops,
    }


def _fits(line: _Line, fit_in: Target) -> bool | None:
    budget = fit_in.budget_bytes
    return None if budget is None else line.prediction.peak_bytes <= budget


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(lines: list[_Line], fit_in: Target) -> FittedTable:
    from reformer_bench.report.fitted import Column, FittedTable, Row
    from reformer_bench.schema.units import format_bytes, format_tokens

    headers = ["length", "peak", "params", "grads", "optim", "activ", "temp", "TFLOP"]
    if fit_in.budget_bytes is not None:
        headers.append("fits")
    rows = []
    for line in lines:
        parts = line.prediction.breakdown
        cells = [line.case.variant, format_tokens(line.case.length)]
        cells.append(format_bytes(line.prediction.peak_bytes))
        cells += [format_bytes(getattr(parts, f"{part}_bytes")) for part in _PARTS]
        cells.append(f"{line.prediction.flops / 1e12:.3g}")
        if fit_in.budget_bytes is not None:
            cells.append("yes" if _fits(line, fit_in) else "no")
        rows.append(Row(cells))
    columns = [Column("variant"), *(Column(name, right=True) for name in headers)]
    return FittedTable(columns, rows, title=_title(lines, fit_in))


def _title(lines: list[_Line], fit_in: Target) -> str:
    from reformer_bench.schema.units import format_bytes

    case = lines[0].case
    text = f"prediction: {case.workload} of batch {case.batch} on {fit_in.profile.name}"
    if fit_in.budget_bytes is not None:
        text += f", which has to fit in {format_bytes(fit_in.budget_bytes)}"
    return text
