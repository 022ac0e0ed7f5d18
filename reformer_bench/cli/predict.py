"""``reformer-bench predict`` says what a model would take, without running it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.explain import explain_options
from reformer_bench.cli.options import (
    Target,
    cases_of,
    format_option,
    model_options,
    seq_len_option,
    target,
    target_options,
)
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.report.explain import Grouping
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.prediction import Prediction


@click.command()
@model_options
@seq_len_option(default="1K,4K,16K,64K")
@target_options
@explain_options("Show what fills memory at the peak, and which code made it.")
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write every predicted allocation to this file, for pytorch.org/memory_viz.",
)
@format_option("table", "json", "csv", text="JSON and CSV hold bytes and FLOPs.")
def predict(
    seq_len: str,
    device: str | None,
    memory_budget: str | None,
    explain: bool,
    top: int,
    grouping: Grouping,
    snapshot: Path | None,
    output_format: str,
    **options: Any,
) -> None:
    """Predict the peak memory and the FLOPs of a step, without running it.

    The model's real code runs on tensors that hold no memory, so that any length can be predicted
    for any device. For a GPU it also says how many programs a step launches, the bytes that they
    move, and the roofline's lower bound of a step's time. That is no estimate: no step is faster.
    """
    if explain and output_format == "csv":
        raise InputError("--explain: has no CSV (give --format table or json)")
    fit_in = target(device, memory_budget)
    cases = cases_of(options, seq_len, fit_in.profile.kind)
    if snapshot is not None and len(cases) != 1:
        raise InputError(f"--snapshot: holds one prediction, and {len(cases)} were asked for")
    predicted = _predicted(cases, fit_in, explain=explain, snapshot=snapshot)
    if output_format == "table":
        _print(predicted, fit_in, grouping if explain else None, top)
        return
    rows = [_row(*one, fit_in) for one in predicted]
    if output_format == "json":
        for row, (_, found) in zip(rows, predicted, strict=True):
            row["notes"] = list(found.notes)
    if explain:
        from reformer_bench.report.explain import grouped

        for row, (_, found) in zip(rows, predicted, strict=True):
            assert found.explanation is not None
            row["explanation"] = grouped(found.explanation, grouping, top)
    text = f"{json.dumps(rows, indent=2)}\n" if output_format == "json" else _csv(rows)
    click.echo(text, nl=False)


def _predicted(
    cases: list[Case], fit_in: Target, *, explain: bool, snapshot: Path | None
) -> list[tuple[Case, Prediction]]:
    """Predict each case, and write the snapshot that was asked for."""
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.schema.units import format_tokens

    predicted = []
    with progress_of("predicting", len(cases)) as tell:
        from reformer_bench.run.predict import follow_case, predict_case

        for case in cases:
            tell(now=f"{case.variant} at length {format_tokens(case.length)}")
            if snapshot is None:
                found = predict_case(case, profile=fit_in.profile, explain=explain)
            else:
                from reformer_bench.store import save_snapshot

                recording = follow_case(case, profile=fit_in.profile)
                found = recording.prediction()
                save_snapshot(snapshot, recording.snapshot())
            predicted.append((case, found))
            tell()
    return predicted


def _print(
    predicted: list[tuple[Case, Prediction]], fit_in: Target, grouping: Grouping | None, top: int
) -> None:
    """Print the table of predictions, and how each peak is filled where that is asked for."""
    from reformer_bench.cli.console import make_console
    from reformer_bench.report.command_tables import predictions_table, small_print
    from reformer_bench.report.explain import case_title, explanation_table

    console = make_console()
    console.print(predictions_table(predicted, fit_in.profile, fit_in.budget_bytes))
    for line in small_print(case for case, _ in predicted):
        console.print(line)
    for note in dict.fromkeys(each for _, found in predicted for each in found.notes):
        console.print(f"Note: {note}", style="dim", markup=False)
    for case, found in predicted if grouping is not None else ():
        assert grouping is not None
        assert found.explanation is not None
        console.print()
        console.print(explanation_table(found.explanation, case_title(case), grouping, top))


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
