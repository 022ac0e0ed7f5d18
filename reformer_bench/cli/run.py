"""``reformer-bench run`` measures a suite, shows the result, and says where it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli.exits import Exit
from reformer_bench.cli.options import (
    allow_code_option,
    asked_suite,
    budget_bytes,
    device_option,
    device_profile_option,
    memory_budget_option,
    model_option,
    out_option,
    seq_len_option,
    set_option,
    variants_option,
)
from reformer_bench.schema.devices import device_profile
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from reformer_bench.run.executor import Executor
    from reformer_bench.run.expand import Plan
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.prediction import Predictions
    from reformer_bench.schema.record import Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.store import Run, RunInfo

# Below this not even a worker's own buffers fit, and a forgotten unit is likelier than a wish.
_LEAST_BUDGET_BYTES = 16 * 2**20


@dataclass(frozen=True)
class RunOptions:
    """The options as the user wrote them."""

    suite: str | None
    targets: tuple[str, ...]
    allow_code: bool
    seq_len: str | None
    settings: tuple[str, ...]
    variants: str | None
    device: str
    device_profile: str | None
    predict: bool
    out: Path | None
    memory_budget: str | None
    case_timeout: float | None
    retry: bool
    dry_run: bool
    executor: str
    quiet: bool

    @property
    def predicts_only(self) -> bool:
        """Whether nothing is to be run."""
        return self.device == "none"


@click.command()
@click.option("--suite", metavar="NAME", help="A suite's name, or a .toml file.")
@model_option(
    "Any model instead of the suite's, or without a suite: FILE.py:FACTORY, "
    "package.module:FACTORY, hf:TYPE, hf:PATH, or a preset. Repeatable."
)
@allow_code_option
@seq_len_option()
@set_option("Change a setting of the suite, e.g. model.n_hashes=8 or batches=1,2. Repeatable.")
@variants_option("Only these variants of the suite.")
@device_option("auto, cpu, cuda, cuda:N, or none: predict everything and run nothing.")
@device_profile_option("With --device none: the device to predict for, e.g. a100-40.")
@click.option(
    "--no-predict",
    "predict",
    flag_value=False,
    default=True,
    type=bool,
    help="Measure without predicting first which cases fit.",
)
@out_option("Folder to write into. A run of the same suite that is there already is continued.")
@memory_budget_option("The most memory a case may take, e.g. 16GiB.")
@click.option(
    "--case-timeout", type=float, metavar="SECONDS", help="Stop a case that takes longer."
)
@click.option(
    "--retry",
    is_flag=True,
    help="Run again the cases of --out that have no result: time limits, errors, out of memory.",
)
@click.option("--dry-run", is_flag=True, help="List what would run, and run nothing.")
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="Where cases run: on this machine, or in a Slurm job array, one GPU for each case.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def run(**options: object) -> int:
    """Measure a suite, or any model: memory and time at each length."""
    asked = RunOptions(**options)  # type: ignore[arg-type]
    budget = _memory_budget(asked.memory_budget)
    suite, parts = _suites(asked)
    executor = make_executor(asked)
    try:
        if asked.predicts_only:
            return _predict(asked, suite, budget, executor)
        return _measure(asked, suite, parts, budget, executor)
    finally:
        executor.close()


def make_executor(asked: RunOptions) -> Executor:
    """Make the executor of a name."""
    if asked.executor == "slurm":
        from reformer_bench.run.executors.slurm import SlurmExecutor

        return SlurmExecutor((asked.out.parent if asked.out else Path("results")) / ".submitit")
    from reformer_bench.run.executors.local import LocalExecutor

    return LocalExecutor()


def _suites(asked: RunOptions) -> tuple[Suite, list[Suite]]:
    """Return the suite asked for and the suites that it stands for (itself, or those it includes),
    with everything that the options change.
    """
    from reformer_bench.schema.suite import parts_of

    suite = asked_suite(asked.suite, asked.targets, asked.seq_len, allow_code=asked.allow_code)
    if not suite.includes:
        changed = _changed(suite, asked)
        return changed, [changed]
    for option, given in (
        ("--variants", asked.variants),
        ("--model", ", ".join(asked.targets)),
        ("--device", "none" if asked.predicts_only else None),
    ):
        if given:
            raise InputError(
                f"{option} {given}: suite {suite.name!r} includes others, which have variants of "
                f"their own: name one of them with --suite ({', '.join(suite.includes)})"
            )
    return suite, [_changed(part, asked) for part in parts_of(suite)]


def _changed(suite: Suite, asked: RunOptions) -> Suite:
    from reformer_bench.run import overrides

    suite = overrides.with_settings(suite, asked.settings)
    if asked.variants is not None:
        suite = overrides.with_variants(suite, asked.variants.split(","))
    if asked.seq_len is not None:
        suite = overrides.with_lengths(suite, asked.seq_len)
    if asked.case_timeout is not None:
        suite = overrides.with_case_timeout(suite, asked.case_timeout)
    return suite


def _memory_budget(text: str | None) -> int | None:
    """Return the budget in bytes; None where none was given."""
    from reformer_bench.schema.units import format_bytes

    count = None if text is None else budget_bytes(text)
    if count is not None and count < _LEAST_BUDGET_BYTES:
        raise InputError(
            f"--memory-budget: {text!r} is {format_bytes(count)}, less than any "
            f"case needs (at least {format_bytes(_LEAST_BUDGET_BYTES)}; "
            "write the unit, as in 16GiB)"
        )
    return count


def _predictions(
    cases: list[Case], asked: RunOptions, executor: Executor, kept: Predictions | None = None
) -> Predictions:
    """Return what each case will take, by its id; nothing where the user asked for none.

    ``kept`` are those made before, which are not made again.
    """
    if not asked.predict:
        return {}
    from reformer_bench.cli.progress import progress_of
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.predict import predict_all

    warm = executor.server if isinstance(executor, LocalExecutor) else None
    found = dict(kept or {})
    missing = [case for case in cases if case.id not in found]
    with progress_of("predicting memory", len(missing), quiet=asked.quiet) as tell:
        found.update(predict_all(missing, asked.device_profile, warm, tell))
    return found


def _predict(asked: RunOptions, suite: Suite, budget: int | None, executor: Executor) -> int:
    """Predict every case for a device profile, keep the records, and show them."""
    from reformer_bench.run.expand import expand
    from reformer_bench.run.predict import predicted_record
    from reformer_bench.store import RECORDS, RunInfo, RunWriter, run_folder_name

    if not asked.predict:
        raise InputError("--no-predict: with --device none there is nothing else to do")
    profile = device_profile(asked.device_profile or "cpu")
    budget = profile.usable_bytes if budget is None else budget
    cases = expand(suite, profile.kind)
    folder = asked.out or Path("results") / run_folder_name(suite.name, f"none-{profile.name}")
    if not asked.dry_run and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--out {folder}: is not empty: predictions go to a folder of their own")
    found = _predictions(cases, asked, executor)
    # This machine's environment with the device that was predicted for.
    environment = executor.describe("cpu").environment.model_copy(
        update={
            "device_kind": profile.kind,
            "device_name": f"{profile.name} (predicted)",
            "device_memory_bytes": profile.usable_bytes,
        }
    )
    records = [predicted_record(case, found[case.id], environment, budget) for case in cases]
    known = any(record.memory.predicted_peak_bytes is not None for record in records)

    from reformer_bench.cli.console import make_console
    from reformer_bench.report.plots.files import write_plots
    from reformer_bench.report.tables import summary_table

    files: list[Path] = []
    if not asked.dry_run:
        with RunWriter(folder, RunInfo.begun(suite, profile.kind, environment, budget)) as writer:
            for record in records:
                writer.append(record)
        drawn = write_plots(records, folder, formats=("png", "svg")) if known else []
        files = [folder / RECORDS, *drawn]
    if not asked.quiet:
        console = make_console()
        console.print(summary_table(records))
        console.print()
        for name in files:
            console.print(str(name), markup=False, soft_wrap=True)
    if not known:
        click.echo("Error: no case could be predicted", err=True)
        return Exit.NOTHING_MEASURED
    return 0


def _measure(
    asked: RunOptions, suite: Suite, parts: list[Suite], budget: int | None, executor: Executor
) -> int:
    from reformer_bench.cli.console import make_console
    from reformer_bench.run import resume
    from reformer_bench.run.expand import check_device, check_installed, make_plan
    from reformer_bench.store import RunInfo, run_folder_name

    if asked.device_profile is not None:
        raise InputError(
            "--device-profile: needs --device none; a device at hand has its own memory"
        )
    check_device(asked.device)
    console = make_console()
    # Wrong models are said at once, before a worker is started to look for a device.
    plan = make_plan(suite, parts, "cpu" if asked.device == "auto" else asked.device)
    # A graphics processor must be there, of that number, unless it is another machine's.
    elsewhere = asked.executor != "local" and asked.device != "auto"
    if asked.dry_run and (asked.device == "cpu" or elsewhere):
        return _list_cases(plan, asked, executor, console)
    if asked.out is not None:
        resume.check_folder(asked.out)
    if asked.retry:
        resume.check_retry(asked.out)
    if not asked.dry_run:
        for part in parts:
            check_installed(part)
    if asked.quiet:
        found = executor.describe(asked.device)
    else:
        # Shown in a terminal only: the first worker takes seconds to import torch.
        with console.status("looking at the device"):
            found = executor.describe(asked.device)
    plan = plan.on(found.device)
    if asked.dry_run:
        return _list_cases(plan, asked, executor, console)
    info = RunInfo.begun(suite, found.device, found.environment, budget)
    _check_budget(info)
    folder = asked.out or Path("results") / run_folder_name(suite.name, found.device)
    earlier = resume.load_earlier(folder, info, plan, same_host=asked.executor == "local")
    again = [] if earlier is None else resume.reopened(earlier, plan, retry=asked.retry)
    if not asked.quiet:
        _announce(info, plan, earlier, again, folder, console)
        _warn_of_load(executor, info)
    records = _run(asked, executor, info, plan, earlier, again, folder, console)
    return _conclude(records, plan, folder, console, quiet=asked.quiet)


def _check_budget(info: RunInfo) -> None:
    """Raise InputError where the budget is more than the device has."""
    from reformer_bench.schema.units import format_bytes

    budget, memory = info.memory_budget_bytes, info.environment.device_memory_bytes
    if budget is not None and memory is not None and budget > memory:
        raise InputError(
            f"--memory-budget: {format_bytes(budget)} is more than the {format_bytes(memory)} of "
            f"{info.environment.device_name}"
        )


def _list_cases(plan: Plan, asked: RunOptions, executor: Executor, console: Console) -> int:
    from reformer_bench.cli.progress import case_name
    from reformer_bench.schema.prediction import NotPredicted
    from reformer_bench.schema.units import counted, format_bytes

    cases = plan.cases
    predictions = _predictions(cases, asked, executor)
    width = max(len(case.variant) for case in cases)
    for case in cases:
        line = f"{case.id}  {case_name(case, width)}"
        predicted = predictions.get(case.id)
        if isinstance(predicted, NotPredicted):
            line += f"  {predicted.problem}"
        elif predicted is not None:
            line += f"  ≈ {format_bytes(predicted.peak_bytes)}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{counted(len(cases), 'case')} on {plan.device}; nothing was run", markup=False)
    return 0


def _announce(
    info: RunInfo,
    plan: Plan,
    earlier: Run | None,
    again: Sequence[Record],
    folder: Path,
    console: Console,
) -> None:
    from reformer_bench.report.coverage import kept_words
    from reformer_bench.schema.units import counted

    cases = plan.cases
    where = info.environment.device_name
    console.print(
        f"{info.suite.name}: {counted(len(cases), 'case')} on {where}, into {folder}", markup=False
    )
    if earlier is None:
        return
    for note in earlier.notes:
        console.print(note, markup=False)
    asked_ids = {case.id for case in cases}
    known = [record for record in earlier.records if record.case_id in asked_ids]
    console.print(kept_words(len(cases), known, again), markup=False)


def _warn_of_load(executor: Executor, info: RunInfo) -> None:
    """Say who keeps this machine busy, before anything is measured on it."""
    from reformer_bench.cli.console import warn
    from reformer_bench.run.executors.local import LocalExecutor

    words = executor.look(info.environment) if isinstance(executor, LocalExecutor) else None
    if words is not None:
        warn(f"{words}; times measured meanwhile are not to be trusted")


def _run(
    asked: RunOptions,
    executor: Executor,
    info: RunInfo,
    plan: Plan,
    earlier: Run | None,
    again: Sequence[Record],
    folder: Path,
    console: Console,
) -> list[Record]:
    """Predict and measure what has no record yet; return the records of the whole run."""
    from reformer_bench.cli.progress import progress_of_run
    from reformer_bench.run.session import Session
    from reformer_bench.store import RunWriter, load_predictions, save_predictions

    began = time.monotonic()
    cases = plan.cases
    open_ids = {record.case_id for record in again}
    records = [] if earlier is None else earlier.records
    records = [record for record in records if record.case_id not in open_ids]
    known = {record.case_id for record in records}
    kept = load_predictions(folder, info.environment)
    pending = [case for case in cases if case.id not in known]
    predictions = _predictions(pending, asked, executor, kept)
    with RunWriter(folder, info) as writer:
        if len(predictions) > len(kept):
            save_predictions(folder, info.environment, predictions)
        session = Session(
            plan,
            executor,
            writer,
            info,
            predictions=predictions,
            spent_s=time.monotonic() - began,
            earlier=records,
            reopened=again,
        )
        try:
            with progress_of_run(console, cases, quiet=asked.quiet) as tell:
                for standing in session.run():
                    tell(standing)
        except KeyboardInterrupt:
            click.echo(
                f"Interrupted: {len(session.records)} of {len(cases)} cases are kept in {folder}; "
                f"--out {folder} goes on.",
                err=True,
            )
            # Not raised on: click would add an empty line.
            sys.exit(Exit.INTERRUPTED)
    return session.records


def _conclude(
    records: list[Record], plan: Plan, folder: Path, console: Console, *, quiet: bool
) -> int:
    """Print the final table, write the plots, and say where the files are and what is missing."""
    from reformer_bench.cli.console import warn
    from reformer_bench.report import coverage
    from reformer_bench.report.plots.files import write_plots
    from reformer_bench.report.tables import summary_table
    from reformer_bench.schema.record import Outcome
    from reformer_bench.schema.units import counted
    from reformer_bench.store import RECORDS

    measured = any(record.finished for record in records)
    drawn = write_plots(records, folder, formats=("png", "svg")) if measured else []
    asked_ids = {case.id for case in plan.cases}
    ended = [record for record in records if record.case_id in asked_ids]
    if not quiet:
        console.print()
        console.print(summary_table(records, plan.suite.baseline_variant))
        console.print()
        for path in (folder / RECORDS, *drawn):
            console.print(str(path), markup=False, soft_wrap=True)
        console.print(coverage.coverage_words(ended), markup=False)
        again = coverage.retry_words(ended, folder)
        if again is not None:
            console.print(again, markup=False, soft_wrap=True)
        words = coverage.load_words(ended)
        if words is not None:
            warn(words)
    if not measured:
        click.echo("Error: no case finished, so nothing was measured", err=True)
        return Exit.NOTHING_MEASURED
    lost = coverage.lost_variants(ended)
    if lost:
        click.echo(
            f"Error: nothing was measured of {', '.join(lost)}: time limits were met while other "
            f"processes took the processors; --out {folder} --retry runs these cases again",
            err=True,
        )
        return Exit.NOTHING_MEASURED
    failed = sum(record.outcome is Outcome.ERROR for record in records)
    if failed:
        click.echo(
            f"Error: {counted(failed, 'case')} failed for another reason than memory or time",
            err=True,
        )
        return Exit.CASE_ERROR
    return 0
