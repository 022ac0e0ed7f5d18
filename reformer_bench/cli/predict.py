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
    from reformer_bench.schema.record import Prediction


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
    for any device. For a GPU it also says how many programs a step launches, the bytes that they
    move, and the roofline's lower bound of a step's time. That is no estimate: no step is faster.
    """
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.schema.units import format_tokens

    fit_in = target(device, memory_budget)
    cases = cases_of(options, seq_len, fit_in.profile.kind)
    predicted = []
    with progress_of("predicting", len(cases)) as tell:
        from reformer_bench.run.predict import predict_case

        for case in cases:
            tell(now=f"{case.variant} at {format_tokens(case.length)} tokens")
            found = predict_case(case, profile=fit_in.profile)
            predicted.append((case, found))
            tell()
    if output_format == "table":
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import predictions_table

        make_console().print(predictions_table(predicted, fit_in.profile, fit_in.budget_bytes))
        return
    rows = [_row(*one, fit_in) for one in predicted]
    text = f"{json.dumps(rows, indent=2)}\n" if output_format == "json" else _csv(rows)
    click.echo(text, nl=False)


def _row(case: Case, found: Prediction, fit_in: Target) -> dict[str, Any]:
    memory, profile = found.memory, fit_in.profile
    assert memory.breakdown is not None
    work = {}
    if profile.kind == "cuda":
        bound_ms = profile.lower_bound_ms(found.moved_bytes, found.flops, case.products_dtype)
        work = {
            "launches": found.launches,
            "moved_bytes": found.moved_bytes,
            "time_lower_bound_ms": bound_ms,
        }
    peak, budget = memory.peak_allocated_bytes, fit_in.budget_bytes
    return {
        "variant": case.variant,
        "workload": case.workload,
        "batch": case.batch,
        "length": case.length,
        "device": profile.name,
        "peak_bytes": peak,
        "breakdown_phase": memory.breakdown_phase,
        **memory.breakdown.model_dump(),
        "budget_bytes": budget,
        "fits": None if budget is None else peak <= budget,
        "flops": found.flops,
        **work,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
