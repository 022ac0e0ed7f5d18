"""``reformer-bench recommend`` names the fastest combination of switches that fits a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import load_records, target, target_options
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.schema.case import Case, DeviceKind


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
    from reformer_bench.recommend import Recommendation, check_device, options_of, with_attention
    from reformer_bench.run.predict import predict_case

    fit_in = target(device, memory_budget)
    profile, budget_bytes = fit_in.profile, fit_in.budget_bytes
    if budget_bytes is None:
        raise InputError(
            "--memory-budget or --device-profile: one must say what the model is to fit in"
        )

    def foretell(case: Case) -> tuple[int, int]:
        prediction = predict_case(case, profile=profile)
        return prediction.peak_bytes, prediction.flops

    records = load_records(runs) if runs else []
    if records and all(record.case.target is not None for record in records):
        raise InputError(
            f"{runs[0]}: has other models only (model_from), and the combinations to choose among "
            "are of this package's models"
        )
    check_device(records, profile.kind)
    cases = _combinations(seq_len, settings, profile.kind)
    if attention is not None:
        cases = with_attention(cases, attention)
    found = Recommendation(*options_of(cases, records, foretell), budget_bytes)
    best = found.best
    if output_format == "json":
        click.echo(json.dumps(found.as_data(), indent=2))
    else:
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.command_tables import recommendation

        console = make_console()
        for part in recommendation(
            cases[0], profile.name, budget_bytes, found.options, found.unit, best
        ):
            console.print(part)
    return 0 if best is not None else Exit.NOTHING_MEASURED


def _combinations(seq_len: str, settings: tuple[str, ...], kind: DeviceKind) -> list[Case]:
    """Return every combination at one length, with the user's settings on top."""
    from reformer_bench.run.expand import expand
    from reformer_bench.run.overrides import with_lengths, with_settings
    from reformer_bench.schema.suite import fields_of, find_suite
    from reformer_bench.schema.units import parse_length

    try:
        length = parse_length(seq_len)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None
    suite = find_suite("ablation")
    # The suite's tables of positions end before the longest sequences asked about.
    longest = max(length, int(fields_of(suite.model).get("max_length", 0)))
    suite = with_settings(suite, (f"model.max_length={longest}", *settings))
    return expand(with_lengths(suite, str(length)), kind)
