"""``reformer-bench recommend`` names the fastest combination of switches that fits a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import Target, load_records, target, target_options
from reformer_bench.schema.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from reformer_bench.report.fitted import FittedTable
    from reformer_bench.report.frontier import Option
    from reformer_bench.schema.case import Case

_COMBINATIONS = "ablation"


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN...]", type=click.Path(path_type=Path))
@click.option("--seq-len", required=True, metavar="LENGTH", help="E.g. 65536 or 64K.")
@target_options
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the model, e.g. model.n_layers=12 or optimizer=adafactor. Repeatable.",
)
@click.option("--attention", metavar="A,B", help="Only these kinds of attention, e.g. lsh,sdpa.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="JSON is for other programs.",
)
def recommend(
    runs: tuple[Path, ...],
    seq_len: str,
    device: str | None,
    memory_budget: str | None,
    settings: tuple[str, ...],
    attention: str | None,
    output_format: str,
) -> int:
    """Name the fastest combination of attention, residual and feed-forward chunks that fits.

    RUN... are folders or records files of runs. Where one of them has measured a combination at
    this length, its figures are taken; otherwise they are predicted, and the table says which is
    which. The combinations are those of the suite ablation. Local attention is among them, although
    a token then sees only its neighbourhood. Exits with 4 when no combination fits.
    """
    from reformer_bench.recommend import options_of
    from reformer_bench.report.frontier import fastest_within
    from reformer_bench.run.predict import predict_case

    fit_in = target(device, memory_budget)
    if fit_in.budget_bytes is None:
        raise InputError(
            "--memory-budget or --device-profile: one must say what the model is to fit in"
        )

    def foretell(case: Case) -> tuple[int, int]:
        prediction = predict_case(case, profile=fit_in.profile)
        return prediction.peak_bytes, prediction.flops

    records = load_records(runs) if runs else []
    kinds = {record.environment.device_kind for record in records}
    if kinds - {fit_in.profile.kind}:
        other = (kinds - {fit_in.profile.kind}).pop()
        raise InputError(
            f"the runs were made on {other}, and the choice is to be made for "
            f"{fit_in.profile.kind}: name a device of their kind with --device-profile, or give no "
            "run"
        )
    cases = _combinations(seq_len, settings, fit_in, attention)
    options, unit = options_of(cases, records, foretell)
    best = fastest_within(options, fit_in.budget_bytes)
    if output_format == "json":
        click.echo(json.dumps(_data(options, unit, best, fit_in), indent=2))
    else:
        from reformer_bench.cli.console import make_console

        console = make_console()
        console.print(_title(cases, fit_in), style="bold")
        console.print(_table(options, unit, best, fit_in))
        console.print()
        console.print(_sentence(best, unit, fit_in))
        for note in _notes(options, unit):
            console.print(note, style="dim")
    return 0 if best is not None else Exit.NOTHING_MEASURED


def _combinations(
    seq_len: str, settings: tuple[str, ...], fit_in: Target, attention: str | None
) -> list[Case]:
    """Return every combination at one length, with the user's settings on top."""
    from reformer_bench.run import overrides
    from reformer_bench.run.expand import expand
    from reformer_bench.schema.suite import fields_of, find_suite
    from reformer_bench.schema.units import parse_length

    try:
        length = parse_length(seq_len)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None
    suite = find_suite(_COMBINATIONS)
    # The suite's tables of positions end before the longest sequences asked about.
    longest = max(length, int(fields_of(suite.model).get("max_length", 0)))
    suite = overrides.with_settings(suite, (f"model.max_length={longest}", *settings))
    cases = expand(overrides.with_lengths(suite, str(length)), fit_in.profile.kind)
    if attention is None:
        return cases
    kinds = {kind for case in cases for kind in case.model.attention}
    wanted = [name.strip() for name in attention.split(",")]
    for name in wanted:
        if name not in kinds:
            allowed = ", ".join(sorted(kinds))
            raise InputError(
                f"--attention: {name!r} is not among the combinations{did_you_mean(name, kinds)} "
                f"(allowed: {allowed})"
            )
    return [case for case in cases if set(case.model.attention) <= set(wanted)]


def _cost_text(cost: float, unit: str) -> str:
    return f"{cost:,.0f} ms" if unit == "ms" else f"{cost / 1e12:.3g} TFLOP"


def _title(cases: list[Case], fit_in: Target) -> str:
    """Say what is chosen for: device, model and step."""
    from reformer_bench.schema.units import counted, format_tokens

    case = cases[0]
    model = case.model
    return (
        f"Combinations at {format_tokens(case.length)} tokens on {fit_in.profile.name}, fastest "
        f"first: {counted(model.n_layers, 'layer')}, d_model {model.d_model}, d_ff {model.d_ff}, "
        f"{counted(model.n_heads, 'head')}, {model.dtype}, batch {case.batch}, "
        f"optimizer {case.optimizer}"
    )


def _table(options: list[Option], unit: str, best: Option | None, fit_in: Target) -> FittedTable:
    from reformer_bench.report.fitted import Column, FittedTable, Row
    from reformer_bench.report.frontier import fits, frontier
    from reformer_bench.schema.units import format_bytes

    assert fit_in.budget_bytes is not None
    worth = {option.name for option in frontier(options)}
    # Said of each figure only where they are not all of one kind.
    peak_sources = len({option.peak_source for option in options}) > 1
    cost_sources = len({option.cost_source for option in options}) > 1
    columns = [Column("combination"), Column("peak", right=True)]
    columns += [Column("")] * peak_sources + [Column("step", right=True)]
    columns += [Column("")] * cost_sources + [Column("fits"), Column("")]
    rows = []
    for option in sorted(options, key=lambda option: (option.cost, option.peak_bytes)):
        mark = "← choose" if option == best else "on the frontier" if option.name in worth else ""
        within = "yes" if fits(option, fit_in.budget_bytes) else "no"
        cells = [option.name, format_bytes(option.peak_bytes)]
        cells += [option.peak_source] * peak_sources + [_cost_text(option.cost, unit)]
        cells += [option.cost_source] * cost_sources
        cells += ["no, ran out when measured" if option.ran_out else within, mark]
        style = "bold" if option == best else "" if option.name in worth else "dim"
        rows.append(Row(cells, style))
    return FittedTable(columns, rows)


def _notes(options: list[Option], unit: str) -> list[str]:
    """Where the figures come from, where the table doesn't say it, and what the names mean."""
    from reformer_bench.report.frontier import frontier

    notes = ["Combination: attention, residual stack, pieces of the feed-forward layer."]
    peaks = {option.peak_source for option in options}
    steps = {option.cost_source for option in options}
    if len(peaks) == 1:
        notes.append(f"Peaks are {peaks.pop()}.")
    if len(steps) == 1 and unit == "ms":
        notes.append(f"Times are {steps.pop()}.")
    if any(option.name.startswith("local") for option in frontier(options)):
        notes.append(
            "Local attention is another function than full attention: a token sees its "
            "neighbourhood only. --attention leaves it out."
        )
    return notes


def _sentence(best: Option | None, unit: str, fit_in: Target) -> str:
    from reformer_bench.schema.units import format_bytes

    if best is None:
        return f"No combination fits {_budget(fit_in)}."
    basis = (
        "FLOPs are compared, because no run has a time for each of these"
        if unit == "FLOP"
        else best.cost_source
    )
    return (
        f"Fastest that fits {_budget(fit_in)}: {best.name}, {format_bytes(best.peak_bytes)} "
        f"({best.peak_source}), {_cost_text(best.cost, unit)} a step ({basis})."
    )


def _budget(fit_in: Target) -> str:
    from reformer_bench.schema.units import format_bytes

    return format_bytes(fit_in.budget_bytes)


def _data(options: list[Option], unit: str, best: Option | None, fit_in: Target) -> dict[str, Any]:
    from dataclasses import asdict

    from reformer_bench.report.frontier import frontier

    return {
        "budget_bytes": fit_in.budget_bytes,
        "cost_unit": unit,
        "recommended": None if best is None else best.name,
        "frontier": [option.name for option in frontier(options)],
        "options": [asdict(option) for option in options],
    }
