"""``reformer-bench predict`` says what a model would take, without running it."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.options import (
    Target,
    cases_of,
    format_option,
    model_options,
    seq_len_option,
    target,
    target_options,
)

if TYPE_CHECKING:
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import AllocatorMemory


@click.command()
@model_options
@seq_len_option(default="1K,4K,16K,64K")
@target_options
@format_option("table", "json", "csv", text="JSON and CSV hold bytes and FLOPs.")
def predict(
    seq_len: str, device: str | None, memory_budget: str | None, output_format: str, **options: Any
) -> None:
    """Predict the peak memory and the FLOPs of a step, without running it.

    The model's real code runs on tensors that hold no memory, so that any length can be predicted
    for any device.
    """
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.schema.units import format_tokens

    fit_in = target(device, memory_budget)
    cases = cases_of(options, seq_len, fit_in.profile.kind)
    predicted, notes = [], []
    with progress_of("predicting", len(cases)) as tell:
        from reformer_bench.run.predict import predict_case

        for case in cases:
            tell(now=f"{case.variant} at length {format_tokens(case.length)}")
            found = predict_case(case, profile=fit_in.profile)
            predicted.append((case, found.memory, found.flops))
            notes.append(found.notes)
            tell()
    if output_format == "table":
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import predictions_table, small_print

        console = make_console()
        console.print(predictions_table(predicted, fit_in.profile.name, fit_in.budget_bytes))
        for line in small_print(case for case, *_ in predicted):
            console.print(line)
        for note in dict.fromkeys(each for found in notes for each in found):
            console.print(f"Note: {note}", style="dim", markup=False)
        return
    rows = [_row(*one, fit_in) for one in predicted]
    if output_format == "json":
        rows = [row | {"notes": list(said)} for row, said in zip(rows, notes, strict=True)]
    text = f"{json.dumps(rows, indent=2)}\n" if output_format == "json" else _csv(rows)
    click.echo(text, nl=False)


def _row(case: Case, memory: AllocatorMemory, flops: int, fit_in: Target) -> dict[str, Any]:
    assert memory.breakdown is not None
    peak, budget = memory.peak_allocated_bytes, fit_in.budget_bytes
    return {
        "variant": case.variant,
        "workload": case.workload,
        "batch": case.batch,
        "length": case.length,
        "device": fit_in.profile.name,
        "peak_bytes": peak,
        "breakdown_phase": memory.breakdown_phase,
        **memory.breakdown.model_dump(),
        "budget_bytes": budget,
        "fits": None if budget is None else peak <= budget,
        "flops": flops,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
