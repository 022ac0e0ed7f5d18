"""``reformer-bench check`` compares a run with a baseline; the exit code says how it went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli import exits
from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.analysis.regression import Comparison
    from reformer_bench.spec.record import Record
    from reformer_bench.spec.tolerances import Tolerances

_BASELINES = Path("results/baselines")


@dataclass(frozen=True)
class Options:
    """The options as the user wrote them."""

    run: Path | None
    suite: str | None
    baseline: Path | None
    tolerances: Path | None
    tolerance: tuple[str, ...]
    allow: tuple[str, ...]
    device: str
    out: Path | None
    output_format: str


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--suite", metavar="NAME", help="Measure this suite now and check it, instead of RUN."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="A file that `baseline` wrote, or a run (default: results/baselines/SUITE.json).",
)
@click.option(
    "--tolerances",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file of tolerance rules.",
)
@click.option(
    "--tolerance",
    multiple=True,
    metavar="[VARIANT:]METRIC=SHARE",
    help="E.g. allocated=0.5%, reformer:time=30%, resident=off; wins over the file. Repeatable.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="FIELD",
    help="Compare although this differs, e.g. env.torch or env.driver_version. Repeatable.",
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="With --suite: the device, cpu, cuda or cuda:N.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --suite: a new folder to keep the run in.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["terminal", "markdown", "junit", "github", "json"]),
    default="terminal",
    show_default=True,
    help="markdown for a pull request, junit and github for CI.",
)
def check(**options: object) -> int:
    """Compare a run with a baseline, case by case.

    Give RUN, the folder or the records file of a run made earlier, or --suite to make one now.

    Exit codes: 0 nothing grew beyond its tolerance; 1 a figure grew beyond it, or a case no longer
    fits; 2 the input was wrong; 3 the environments differ, so that figures can't be compared;
    4 nothing was measured, or cases are missing; 130 interrupted.
    """
    from reformer_bench.analysis.comparability import check_allowed
    from reformer_bench.analysis.regression import compare
    from reformer_bench.store import load_baseline

    asked = Options(**options)  # type: ignore[arg-type]
    if (asked.run is None) == (asked.suite is None):
        raise InputError("check needs either RUN or --suite")
    allowed = frozenset(asked.allow)
    check_allowed(allowed)
    tolerances = _tolerances(asked)
    # Read before anything is measured: a mistake in it is to be said at once.
    old = load_baseline(_baseline_path(asked))
    if asked.suite is not None:
        return _check_suite(asked, asked.suite, old, tolerances, allowed)
    comparison = compare(old, _records(asked), tolerances, allowed)
    _print(comparison, asked.output_format)
    return exit_code(comparison)


def _check_suite(
    asked: Options,
    suite: str,
    old: list[Record],
    tolerances: Tolerances,
    allowed: frozenset[str],
) -> int:
    """Measure a suite and compare it, unless none of its cases can be compared."""
    from reformer_bench.analysis.regression import Status, compare
    from reformer_bench.cli import check_suite
    from reformer_bench.report.check_words import messages

    check_suite.check_new_folder(asked.out)
    with check_suite.prepared(suite, asked.device, old, allowed) as ready:
        foreseen = ready.foreseen
        hopeless = foreseen.having(Status.NOT_COMPARABLE)
        if hopeless and len(hopeless) == len(foreseen.cases):
            click.echo(f"{ready.suite.name}: nothing can be compared, so nothing is run", err=True)
            _print(foreseen, asked.output_format)
            return exit_code(foreseen)
        for status, line in messages(foreseen):
            if status is Status.NOT_COMPARABLE:
                click.echo(line, err=True)
        comparison = compare(old, check_suite.measure(ready, asked.out), tolerances, allowed)
    _print(comparison, asked.output_format)
    return exit_code(comparison)


def exit_code(comparison: Comparison) -> int:
    """Return the exit code of the worst that happened to any case."""
    from reformer_bench.analysis.regression import Status

    if comparison.having(Status.REGRESSION, Status.NOW_OUT_OF_MEMORY):
        return exits.REGRESSION
    if comparison.having(Status.NOT_COMPARABLE):
        return exits.NOT_COMPARABLE
    absent = comparison.having(Status.MISSING, Status.NOW_FAILS)
    not_compared = comparison.having(Status.NEW, Status.NOW_MEASURED, Status.NOT_MEASURED)
    if absent or len(not_compared) == len(comparison.cases):
        return exits.NOTHING_MEASURED
    return 0


def _tolerances(asked: Options) -> Tolerances:
    from reformer_bench.spec.tolerances import Tolerances, load_tolerances

    found = Tolerances() if asked.tolerances is None else load_tolerances(asked.tolerances)
    return found.with_options(asked.tolerance)


def _baseline_path(asked: Options) -> Path:
    if asked.baseline is not None:
        return asked.baseline
    if asked.suite is not None:
        from reformer_bench.spec.suite import find_suite

        name = find_suite(asked.suite).name
    else:
        assert asked.run is not None
        name = _suite_of(asked.run)
    path = _BASELINES / f"{name}.json"
    if not path.is_file():
        raise InputError(f"--baseline: there is no {path}, so say which file to compare with")
    return path


def _suite_of(run: Path) -> str:
    from reformer_bench.store import load_run

    records = load_run(run).records
    if not records:
        raise InputError(f"{run}: the run has no records yet")
    return records[0].case.suite


def _records(asked: Options) -> list[Record]:
    from reformer_bench.store import load_run

    assert asked.run is not None
    loaded = load_run(asked.run)
    for note in loaded.notes:
        click.echo(note, err=True)
    return loaded.records


def _print(comparison: Comparison, output_format: str) -> None:
    if output_format == "terminal":
        from reformer_bench.cli.console import make_console
        from reformer_bench.report.check_table import check_table

        make_console().print(check_table(comparison))
        return
    from reformer_bench.report import check_export

    make = {
        "markdown": check_export.check_markdown,
        "junit": check_export.check_junit,
        "github": check_export.check_github,
        "json": check_export.check_json,
    }
    click.echo(make[output_format](comparison), nl=False)
