"""``reformer-bench claims RUN...`` says what runs say of the paper's claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import load_records
from reformer_bench.schema.errors import InputError, writing

if TYPE_CHECKING:
    from reformer_bench.claims.judge import Judgement
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Record

_PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="JSON has every measured point that a figure was fitted to.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also draw each fit beside the growth that the paper claims, as .png, .svg or .pdf.",
)
def claims(runs: tuple[Path, ...], output_format: str, plot: Path | None) -> int:
    """Judge the paper's claims by one or more runs of one device.

    RUN... are folders or records files. Each claim is supported, refuted, or not measurable here;
    the table shows what the paper leads to expect and what was found, with 90% intervals. Exits
    with 0 when no claim is refuted, 1 when one is, 4 when none could be judged.
    """
    from reformer_bench.claims import table
    from reformer_bench.claims.judge import Verdict
    from reformer_bench.claims.paper import judge_claims
    from reformer_bench.claims.remarks import remarks

    if plot is not None and plot.suffix not in _PLOT_SUFFIXES:
        raise InputError(f"--plot {plot}: does not end with {', '.join(_PLOT_SUFFIXES)}")
    records = load_records(runs)
    _one_model(records)
    judgements, beyond = judge_claims(records), remarks(records)
    if output_format == "table":
        from reformer_bench.cli.console import make_console

        console = make_console()
        console.print(table.claims_table(judgements))
        console.print(table.remarks_text(beyond))
    elif output_format == "markdown":
        click.echo(table.claims_markdown(judgements, beyond), nl=False)
    else:
        click.echo(table.claims_json(judgements, beyond))
    if plot is not None:
        _draw(judgements, records, plot)
    verdicts = {judged.verdict for judged in judgements}
    if Verdict.REFUTED in verdicts:
        return Exit.REFUTED
    if verdicts == {Verdict.NOT_MEASURABLE}:
        whose = ""
        if all(record.case.target is not None for record in records):
            whose = ": the paper's claims are about this package's models, and these are others"
        click.echo(f"Error: no claim could be judged by these runs{whose}", err=True)
        return Exit.NOTHING_MEASURED
    return 0


def _draw(judgements: list[Judgement], records: list[Record], path: Path) -> None:
    from reformer_bench.claims.figure import write_claims_figure
    from reformer_bench.report.words import device_words, versions_words

    # Unlike predictions for another device, measurements are all of one.
    environments = [r.environment for r in records if r.is_measured] or [records[0].environment]
    where = f"{device_words(environments[:1])} · {versions_words(environments[:1])}"
    with writing(path, "--plot"):
        drawn = write_claims_figure(judgements, where, path)
    click.echo(str(path) if drawn else "nothing to draw: no growth was fitted", err=True)


def _one_model(records: list[Record]) -> None:
    """Raise InputError where a variant of a suite is one model in one record and another in the
    next: a fit over both would measure the difference.
    """
    first: dict[tuple[str, ...], Record] = {}
    for record in records:
        case = record.case
        key = (case.suite, case.variant, case.workload, record.environment.device_kind)
        known = first.setdefault(key, record).case
        told = [_told(each) for each in (known, case)]
        different = [name for name in told[0] | told[1] if told[0].get(name) != told[1].get(name)]
        if not different:
            continue
        name = different[0]
        one, other = (each.get(name, "none") for each in told)
        raise InputError(
            f"{case.variant} of suite {case.suite} has {name} = {one} in one record and {other} in "
            "another: give runs of one model only"
        )


def _told(case: Case) -> dict[str, Any]:
    """Return what decides a case's figures besides its sizes, by name; ``train.`` is a switch's."""
    train = {f"train.{name}": value for name, value in case.train.model_dump(mode="json").items()}
    return {**case.model.model_dump(mode="json"), "optimizer": case.optimizer, **train}
