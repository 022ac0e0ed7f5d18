"""``reformer-bench check`` compares a run with a baseline; the exit code says how it went."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli import exits
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.check.compare import Comparison
    from reformer_bench.run.executor import Description
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.session import Notify
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.schema.tolerances import Tolerances


_THREADS = "env.torch_threads"
_INSTRUCTIONS = "env.instruction_set"


@dataclass(frozen=True)
class Prepared:
    """A suite that is ready to be measured, and what is known of the comparison by then."""

    suite: Suite
    description: Description
    cases: list[Case]
    foreseen: Comparison
    """The cases that the baseline has too, as far as they can't be compared whatever they give."""
    executor: LocalExecutor
    as_baseline: dict[str, str]
    """The environment variables that were set because the baseline was made so."""


@contextmanager
def prepared(
    name: str, device: str, old: Sequence[Record], allowed: frozenset[str]
) -> Iterator[Prepared]:
    """A suite made ready for a device, with the baseline's number of torch's threads and no more
    processor instructions than it was made with.

    Kernels have buffers for each thread, and for bfloat16 others with other instructions, so that
    other ones could not be compared; where ``allowed`` accepts others, torch chooses as ever.
    Raises InputError for a suite or a device that doesn't exist.
    """
    from reformer_bench.check.compare import foresee
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.expand import check_device, expand
    from reformer_bench.schema.suite import find_suite

    suite = find_suite(name)
    check_device(device)
    expand(suite, "cpu" if device == "auto" else device)
    as_baseline = settings_of(old, allowed)
    with environment(as_baseline):
        executor = LocalExecutor()
        try:
            description = executor.describe(device)
            cases = expand(suite, description.device)
            foreseen = foresee(old, cases, description.environment, allowed)
            yield Prepared(suite, description, cases, foreseen, executor, as_baseline)
        finally:
            executor.close()


def settings_of(old: Sequence[Record], allowed: frozenset[str]) -> dict[str, str]:
    """Return the environment variables that make workers like those of a baseline.

    What the baseline's records don't agree on, or what is accepted to differ, is left as it is.
    """
    from reformer_bench.check.comparability import is_accepted
    from reformer_bench.measure.environment import environment_to_play

    variables: dict[str, str] = {}
    threads = {record.environment.torch_threads for record in old}
    if len(threads) == 1 and not is_accepted(_THREADS, allowed):
        count = threads.pop()
        # MKL's variable outdoes OpenMP's, and MKL takes no more threads than cores unless told to.
        variables |= {
            "OMP_NUM_THREADS": str(count),
            "MKL_NUM_THREADS": str(count),
            "MKL_DYNAMIC": "FALSE",
        }
    sets = {record.environment.instruction_set for record in old}
    if len(sets) == 1 and not is_accepted(_INSTRUCTIONS, allowed):
        variables |= environment_to_play(sets.pop())
    return variables


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Workers that are started inside have these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_new_folder(out: Path | None) -> None:
    """InputError where a folder to keep the run in isn't empty."""
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty: take another folder")


def measure(ready: Prepared, out: Path | None) -> list[Record]:
    """The records of a suite run now, predicted and measured, kept in ``out`` where it is given.

    A line on stderr at the beginning and at the end; in a terminal, what runs now between them.
    """
    from reformer_bench.schema.units import counted

    count = counted(len(ready.cases), "case")
    click.echo(f"{ready.suite.name}: measuring {count}{_settings_words(ready)}", err=True)
    began = time.monotonic()
    with _kept(out) as folder, _shown(len(ready.cases)) as tell:
        records = _run(ready, folder, tell)
    click.echo(f"{ready.suite.name}: {count} in {time.monotonic() - began:.0f} s", err=True)
    return records


def _settings_words(ready: Prepared) -> str:
    from reformer_bench.measure.environment import LIMIT_OF_ONEDNN
    from reformer_bench.schema.units import counted

    found = ready.description.environment
    words = f" with {counted(found.torch_threads, 'thread')}"
    if LIMIT_OF_ONEDNN in ready.as_baseline:
        words += f" and the instructions of {found.instruction_set}"
    return f"{words}, as the baseline was" if ready.as_baseline else words


@contextmanager
def _kept(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="reformer-bench-") as folder:
        yield Path(folder)


@contextmanager
def _shown(total: int) -> Iterator[Notify]:
    """Something to tell progress to: a line at the bottom of a terminal, nothing elsewhere."""
    from rich.console import Console

    from reformer_bench.run.session import Progress
    from reformer_bench.schema.units import counted

    console = Console(stderr=True, highlight=False)
    with console.status(f"predicting {counted(total, 'case')}") as status:

        def tell(progress: Progress) -> None:
            if not progress.records:
                case = progress.case
                status.update(f"{progress.done + 1} of {total}: {case.variant}, {case.workload}")

        yield tell


def _run(ready: Prepared, folder: Path, notify: Notify) -> list[Record]:
    from reformer_bench.run.predict import predict_all
    from reformer_bench.run.session import Session
    from reformer_bench.schema.case import device_kind
    from reformer_bench.store import RunInfo, RunWriter

    found = ready.description
    info = RunInfo(
        suite=ready.suite,
        device=found.device,
        command=("reformer-bench", *sys.argv[1:]),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=found.environment,
    )
    with RunWriter(folder, info) as writer:
        session = Session(
            ready.executor,
            writer,
            ready.cases,
            ready.suite.on(device_kind(found.device)),
            found.environment,
            predictions=predict_all(ready.cases, warm=ready.executor.server),
            notify=notify,
        )
        return session.run()


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
    from reformer_bench.check.comparability import check_allowed
    from reformer_bench.check.compare import compare
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
    from reformer_bench.check.compare import Status, compare
    from reformer_bench.check.words import messages

    check_new_folder(asked.out)
    with prepared(suite, asked.device, old, allowed) as ready:
        foreseen = ready.foreseen
        hopeless = foreseen.having(Status.NOT_COMPARABLE)
        if hopeless and len(hopeless) == len(foreseen.cases):
            click.echo(f"{ready.suite.name}: nothing can be compared, so nothing is run", err=True)
            _print(foreseen, asked.output_format)
            return exit_code(foreseen)
        for status, line in messages(foreseen):
            if status is Status.NOT_COMPARABLE:
                click.echo(line, err=True)
        comparison = compare(old, measure(ready, asked.out), tolerances, allowed)
    _print(comparison, asked.output_format)
    return exit_code(comparison)


def exit_code(comparison: Comparison) -> int:
    """Return the exit code of the worst that happened to any case."""
    from reformer_bench.check.compare import Status

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
    from reformer_bench.schema.tolerances import Tolerances, load_tolerances

    found = Tolerances() if asked.tolerances is None else load_tolerances(asked.tolerances)
    return found.with_options(asked.tolerance)


def _baseline_path(asked: Options) -> Path:
    if asked.baseline is not None:
        return asked.baseline
    if asked.suite is not None:
        from reformer_bench.schema.suite import find_suite

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
        from reformer_bench.check.outputs import check_table
        from reformer_bench.cli.console import make_console

        make_console().print(check_table(comparison))
        return
    from reformer_bench.check import outputs as check_export

    make = {
        "markdown": check_export.check_markdown,
        "junit": check_export.check_junit,
        "github": check_export.check_github,
        "json": check_export.check_json,
    }
    click.echo(make[output_format](comparison), nl=False)
