"""``reformer-bench check`` compares a run with a baseline; the exit code says how it went."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import (
    allow_code_option,
    asked_suite,
    device_option,
    format_option,
    model_option,
    out_option,
    run_argument,
    seq_len_option,
    set_option,
)
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.check.compare import Comparison
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.expand import Plan
    from reformer_bench.schema.record import Environment, Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.schema.tolerances import Tolerances

_BASELINES = Path("results/baselines")
_THREADS = "env.torch_threads"
_INSTRUCTIONS = "env.instruction_set"


@click.command()
@run_argument(required=False)
@click.option(
    "--suite", metavar="NAME", help="Measure this suite now and check it, instead of RUN."
)
@model_option("Measure this model now: FILE.py:FACTORY, hf:TYPE, …, as `run` does. Repeatable.")
@set_option("With --suite or --model: change a setting, as `run` does. Repeatable.")
@seq_len_option("With --suite or --model: the lengths.")
@allow_code_option
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
@device_option("With --suite: the device, cpu, cuda or cuda:N.", default="cpu")
@out_option("With --suite: a new folder to keep the run in.")
@format_option(
    "terminal",
    "markdown",
    "junit",
    "github",
    "json",
    text="markdown for a pull request, junit and github for CI.",
)
def check(
    run: Path | None,
    suite: str | None,
    targets: tuple[str, ...],
    settings: tuple[str, ...],
    seq_len: str | None,
    allow_code: bool,
    baseline: Path | None,
    tolerances: Path | None,
    tolerance: tuple[str, ...],
    allow: tuple[str, ...],
    device: str,
    out: Path | None,
    output_format: str,
) -> int:
    """Compare a run with a baseline, case by case.

    Give RUN, the folder or the records file of a run made earlier; or --suite or --model to make
    one now.

    Exit codes: 0 nothing grew beyond its tolerance; 1 a figure grew beyond it, or a case no longer
    fits; 2 the input was wrong; 3 the environments differ, so that figures can't be compared;
    4 nothing was measured, or cases are missing; 130 interrupted.
    """
    from reformer_bench.check.comparability import check_allowed
    from reformer_bench.check.compare import compare
    from reformer_bench.schema.tolerances import Tolerances, load_tolerances
    from reformer_bench.store import load_baseline, load_run

    if (run is None) == (suite is None and not targets):
        raise InputError("check needs either RUN, or --suite or --model")
    now = None if run is not None else _suite_now(suite, targets, settings, seq_len, allow_code)
    allowed = frozenset(allow)
    check_allowed(allowed)
    rules = Tolerances() if tolerances is None else load_tolerances(tolerances)
    rules = rules.with_options(tolerance)
    # Read before anything is measured: a mistake in it is to be said at once.
    old = load_baseline(_baseline_path(run, now) if baseline is None else baseline)
    if now is not None:
        comparison = compare_now(now, device, out, old, rules, allowed)
    else:
        assert run is not None
        new = load_run(run)
        for note in new.notes:
            click.echo(note, err=True)
        comparison = compare(old, new.records, rules, allowed)
    _print(comparison, output_format)
    return _exit_code(comparison)


def _suite_now(
    name: str | None,
    targets: tuple[str, ...],
    settings: tuple[str, ...],
    seq_len: str | None,
    allow_code: bool,
) -> Suite:
    """Return what is to be measured now, with everything that the options change."""
    from reformer_bench.run import overrides

    suite = asked_suite(name, targets, seq_len, allow_code=allow_code)
    suite = overrides.with_settings(suite, settings)
    return suite if seq_len is None else overrides.with_lengths(suite, seq_len)


def _baseline_path(run: Path | None, suite: Suite | None) -> Path:
    from reformer_bench.store import load_run

    if suite is not None:
        name = suite.name
    else:
        assert run is not None
        records = load_run(run).records
        if not records:
            raise InputError(f"{run}: the run has no records yet")
        name = records[0].case.suite
    path = _BASELINES / f"{name}.json"
    if not path.is_file():
        raise InputError(f"--baseline: there is no {path}, so say which file to compare with")
    return path


def compare_now(
    suite: Suite,
    device: str,
    out: Path | None,
    old: Sequence[Record],
    tolerances: Tolerances,
    allowed: frozenset[str],
) -> Comparison:
    """Measure a suite and compare it, unless none of its cases can be compared.

    It is measured with the baseline's number of torch's threads and no more processor instructions
    than the baseline was made with. Kernels have buffers for each thread, and for bfloat16 others
    with other instructions, so that other ones could not be compared; where ``allowed`` accepts
    others, torch chooses as ever.
    """
    from reformer_bench.check.compare import Status, compare, foresee
    from reformer_bench.check.words import messages
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.expand import check_device, make_plan

    if out is not None and out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty: take another folder")
    check_device(device)
    plan = make_plan(suite, [suite], "cpu" if device == "auto" else device)
    settings = _settings_of(old, allowed)
    with _environment_variables(settings), closing(LocalExecutor()) as executor:
        found = executor.describe(device)
        plan = plan.on(found.device)
        foreseen = foresee(old, plan.cases, found.environment, allowed)
        hopeless = foreseen.having(Status.NOT_COMPARABLE)
        if hopeless and len(hopeless) == len(foreseen.cases):
            click.echo(f"{suite.name}: nothing can be compared, so nothing is run", err=True)
            return foreseen
        for status, line in messages(foreseen):
            if status is Status.NOT_COMPARABLE:
                click.echo(line, err=True)
        new = measure(plan, executor, found.environment, settings, out)
    return compare(old, new, tolerances, allowed)


def _settings_of(old: Sequence[Record], allowed: frozenset[str]) -> dict[str, str]:
    """Return the environment variables that make workers like those of a baseline.

    What the baseline's records don't agree on, or what is accepted to differ, is left as it is.
    """
    from reformer_bench.check.comparability import is_accepted
    from reformer_bench.measure.environment import environment_to_play

    variables: dict[str, str] = {}
    threads = {record.environment.torch_threads for record in old}
    if len(threads) == 1 and not is_accepted(_THREADS, allowed):
        count = str(threads.pop())
        # MKL's variable outdoes OpenMP's, and MKL takes no more threads than cores unless told to.
        variables = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "MKL_DYNAMIC": "FALSE"}
    sets = {record.environment.instruction_set for record in old}
    if len(sets) == 1 and not is_accepted(_INSTRUCTIONS, allowed):
        variables |= environment_to_play(sets.pop())
    return variables


@contextmanager
def _environment_variables(variables: dict[str, str]) -> Iterator[None]:
    """Have workers that are started inside see these environment variables."""
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


def measure(
    plan: Plan,
    executor: LocalExecutor,
    environment: Environment,
    settings: dict[str, str],
    out: Path | None,
) -> list[Record]:
    """Return the records of a plan run now, predicted and measured, kept in ``out`` if given.

    Says a line on stderr at the beginning and at the end; in a terminal, what runs now between
    them. ``settings`` are the environment variables that the baseline asked for.
    """
    from rich.console import Console

    from reformer_bench.measure.environment import LIMIT_OF_ONEDNN
    from reformer_bench.run.predict import predict_all
    from reformer_bench.run.session import Session
    from reformer_bench.schema.units import counted
    from reformer_bench.store import RunInfo, RunWriter

    name, cases = plan.suite.name, plan.cases
    count = counted(len(cases), "case")
    words = f"measuring {count} with {counted(environment.torch_threads, 'thread')}"
    if LIMIT_OF_ONEDNN in settings:
        words += f" and the instructions of {environment.instruction_set}"
    click.echo(f"{name}: {words}{', as the baseline was' if settings else ''}", err=True)
    began = time.monotonic()
    with ExitStack() as stack:
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reformer-bench-")))
        status = stack.enter_context(
            Console(stderr=True, highlight=False).status(f"predicting {count}")
        )
        info = RunInfo.begun(plan.suite, plan.device, environment)
        writer = stack.enter_context(RunWriter(out, info))
        predictions = predict_all(cases, warm=executor.server)
        session = Session(plan, executor, writer, info, predictions=predictions)
        for now in session.run():
            if not now.records:
                what = f"{now.case.variant}, {now.case.workload}"
                status.update(f"{now.done + 1} of {len(cases)}: {what}")
    click.echo(f"{name}: {count} in {time.monotonic() - began:.0f} s", err=True)
    return session.records


def _print(comparison: Comparison, output_format: str) -> None:
    if output_format == "terminal":
        from reformer_bench.check.outputs import check_table
        from reformer_bench.cli.console import make_console

        make_console().print(check_table(comparison))
        return
    from reformer_bench.check import outputs

    make = {
        "markdown": outputs.check_markdown,
        "junit": outputs.check_junit,
        "github": outputs.check_github,
        "json": outputs.check_json,
    }
    click.echo(make[output_format](comparison), nl=False)


def _exit_code(comparison: Comparison) -> int:
    """Return the exit code of the worst that happened to any case."""
    from reformer_bench.check.compare import Status

    if comparison.having(Status.REGRESSION, Status.NOW_OUT_OF_MEMORY):
        return Exit.REGRESSION
    if comparison.having(Status.NOT_COMPARABLE):
        return Exit.NOT_COMPARABLE
    absent = comparison.having(Status.MISSING, Status.NOW_FAILS)
    not_compared = comparison.having(Status.NEW, Status.NOW_MEASURED, Status.NOT_MEASURED)
    if absent or len(not_compared) == len(comparison.cases):
        return Exit.NOTHING_MEASURED
    return 0
