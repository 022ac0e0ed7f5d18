"""``reformer-bench run`` measures a suite, shows the result, and says where it is."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli import exits
from reformer_bench.cli import options as run_options
from reformer_bench.schema.devices import DeviceProfile, device_profile
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from reformer_bench.run.executor import Description, Executor
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Environment, Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.store import Run, RunInfo


def run_predicted(
    asked: run_options.Options,
    suite: Suite,
    budget: int | None,
    executor: Executor,
    console: Console,
) -> int:
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
    found = run_options.predictions(cases, asked, executor)
    environment = _environment(executor.describe("cpu").environment, profile)
    records = [predicted_record(case, found[case.id], environment, budget) for case in cases]
    if not asked.dry_run:
        info = RunInfo(
            suite=suite,
            device=profile.kind,
            memory_budget_bytes=budget,
            command=("reformer-bench", *sys.argv[1:]),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=environment,
        )
        with RunWriter(folder, info) as writer:
            for record in records:
                writer.append(record)
    return _show(records, asked, folder / RECORDS, console)


def _environment(here: Environment, profile: DeviceProfile) -> Environment:
    """Return this machine's environment with the device that was predicted for."""
    return here.model_copy(
        update={
            "device_kind": profile.kind,
            "device_name": f"{profile.name} (predicted)",
            "device_memory_bytes": profile.usable_bytes,
        }
    )


def _show(records: list[Record], asked: run_options.Options, path: Path, console: Console) -> int:
    from reformer_bench.report.plots.files import write_plots
    from reformer_bench.report.tables import summary_table

    known = [record for record in records if record.memory.predicted_peak_bytes is not None]
    written = []
    if known and not asked.dry_run:
        written = write_plots(records, path.parent, formats=("png", "svg"))
    if not asked.quiet:
        console.print(summary_table(records))
        console.print()
        for name in () if asked.dry_run else (path, *written):
            console.print(str(name), markup=False, soft_wrap=True)
    if not known:
        click.echo("Error: no case could be predicted", err=True)
        return exits.NOTHING_MEASURED
    return 0


@click.command()
@click.option("--suite", required=True, metavar="NAME", help="A suite's name, or a .toml file.")
@click.option(
    "--seq-len",
    metavar="LENGTHS",
    help="Sequence lengths, e.g. 512,1024 or 512..64K (every doubling).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the suite, e.g. model.n_hashes=8 or batches=1,2. Repeatable.",
)
@click.option("--variants", metavar="A,B", help="Only these variants of the suite.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:N, or none: predict everything and run nothing.",
)
@click.option(
    "--device-profile",
    metavar="NAME",
    help="With --device none: the device to predict for, e.g. a100-40.",
)
@click.option(
    "--no-predict",
    "predict",
    flag_value=False,
    default=True,
    type=bool,
    help="Measure without predicting first which cases fit.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write into. A run of the same suite that is there already is continued.",
)
@click.option(
    "--memory-budget", metavar="SIZE", help="The most memory a case may take, e.g. 16GiB."
)
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
    """Measure a suite: memory and time of each of its models at each length."""
    from reformer_bench.cli.console import make_console

    asked = run_options.Options(**options)  # type: ignore[arg-type]
    console = make_console()
    budget = run_options.memory_budget(asked)
    suite, parts = run_options.resolved_parts(asked)
    executor = run_options.make_executor(asked)
    try:
        return _run(asked, suite, parts, budget, executor, console)
    finally:
        executor.close()


def _run(
    asked: run_options.Options,
    suite: Suite,
    parts: list[Suite],
    budget: int | None,
    executor: Executor,
    console: Console,
) -> int:
    from reformer_bench.run.expand import check_device, expand_parts
    from reformer_bench.store import RunInfo, run_folder_name

    if asked.predicts_only:
        return run_predicted(asked, suite, budget, executor, console)
    if asked.device_profile is not None:
        raise InputError(
            "--device-profile: needs --device none; a device at hand has its own memory"
        )
    check_device(asked.device)
    # Wrong models are said at once, before a worker is started to look for a device.
    expand_parts(parts, "cpu" if asked.device == "auto" else asked.device)
    # A graphics processor must be there, of that number, unless it is another machine's.
    elsewhere = asked.executor != "local" and asked.device != "auto"
    if asked.dry_run and (asked.device == "cpu" or elsewhere):
        return _list_cases(
            expand_parts(parts, asked.device), asked, asked.device, executor, console
        )
    if asked.out is not None:
        _check_folder(asked.out)
    if asked.retry:
        _check_retry(asked.out)
    if not asked.dry_run:
        for part in parts:
            run_options.check_installed(part)
    description = _describe(asked, executor, console)
    cases = expand_parts(parts, description.device)
    if asked.dry_run:
        return _list_cases(cases, asked, description.device, executor, console)
    info = RunInfo(
        suite=suite,
        device=description.device,
        memory_budget_bytes=budget,
        command=("reformer-bench", *sys.argv[1:]),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=description.environment,
    )
    run_options.check_budget(info)
    folder = asked.out or Path("results") / run_folder_name(suite.name, description.device)
    earlier = _earlier(folder, info, cases, same_host=asked.executor == "local")
    again = _reopened(earlier, cases, parts, asked)
    _announce(info, cases, earlier, again, folder, console, asked)
    if not asked.quiet:
        _warn_of_load(executor, info)
    records = _measure(asked, executor, info, parts, earlier, again, folder, console)
    return _conclude(records, cases, folder, console, asked.quiet, suite.baseline_variant)


def _describe(asked: run_options.Options, executor: Executor, console: Console) -> Description:
    if asked.quiet:
        return executor.describe(asked.device)
    # Shown in a terminal only: the first worker takes seconds to import torch.
    with console.status("looking at the device"):
        return executor.describe(asked.device)


def _measure(
    asked: run_options.Options,
    executor: Executor,
    info: RunInfo,
    parts: list[Suite],
    earlier: Run | None,
    again: list[Record],
    folder: Path,
    console: Console,
) -> list[Record]:
    from reformer_bench.cli.progress import make_reporter
    from reformer_bench.run.expand import expand_parts
    from reformer_bench.run.session import measure_parts
    from reformer_bench.store import RunWriter, load_predictions, save_predictions

    began = time.monotonic()
    cases = expand_parts(parts, info.device)
    open_ids = {record.case_id for record in again}
    records = [] if earlier is None else earlier.records
    records = [record for record in records if record.case_id not in open_ids]
    kept = load_predictions(folder, info.environment)
    known = {record.case_id for record in records}
    pending = [case for case in cases if case.id not in known]
    predictions = run_options.predictions(pending, asked, executor, kept)
    reporter = make_reporter(console, cases, quiet=asked.quiet)
    with RunWriter(folder, info) as writer:
        if len(predictions) > len(kept):
            save_predictions(folder, info.environment, predictions)
        reporter.start()
        try:
            measure_parts(
                parts,
                executor,
                writer,
                info,
                records=records,
                reopened=again,
                predictions=predictions,
                spent_s=time.monotonic() - began,
                notify=reporter.tell,
            )
        except KeyboardInterrupt:
            reporter.stop()
            click.echo(
                f"Interrupted: {len(records)} of {len(cases)} cases are kept in {folder}; "
                f"--out {folder} goes on.",
                err=True,
            )
            # Not raised on: click would add an empty line.
            sys.exit(exits.INTERRUPTED)
        finally:
            reporter.stop()
    return records


def _check_folder(folder: Path) -> None:
    """Raise InputError where a folder has files that aren't a run's."""
    from reformer_bench.store import RECORDS

    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORDS).is_file():
        raise InputError(f"--out {folder}: is not empty and holds no run: take another folder")


def _earlier(folder: Path, info: RunInfo, cases: list[Case], *, same_host: bool) -> Run | None:
    """Return the run that a folder already holds, once it is sure that this one continues it."""
    from reformer_bench.run.resume import check_continues
    from reformer_bench.store import RECORDS, load_run

    if not (folder / RECORDS).is_file():
        return None
    earlier = load_run(folder)
    if earlier.records:
        check_continues(earlier, info, cases, same_host=same_host)
    return earlier


def _check_retry(folder: Path | None) -> None:
    """InputError where there is no run whose cases could be run again."""
    from reformer_bench.store import RECORDS

    if folder is None:
        raise InputError("--retry: give the folder of the run with --out")
    if not (folder / RECORDS).is_file():
        raise InputError(f"--retry: --out {folder} holds no run")


def _reopened(
    earlier: Run | None, cases: list[Case], parts: list[Suite], asked: run_options.Options
) -> list[Record]:
    """Records of an earlier run whose cases are run again."""
    from reformer_bench.run.resume import reopened

    if earlier is None:
        return []
    by_suite = {part.name: part for part in parts}

    def limit_s(case: Case) -> float:
        return by_suite[case.suite].on(case.device_kind).case_timeout_s

    return reopened(earlier, cases, limit_s, retry=asked.retry)


def _warn_of_load(executor: Executor, info: RunInfo) -> None:
    """Say who keeps this machine busy, before anything is measured on it."""
    from reformer_bench.cli.console import warn
    from reformer_bench.run.executors.local import LocalExecutor

    if not isinstance(executor, LocalExecutor):
        return
    words = executor.look(info.environment)
    if words is not None:
        warn(f"{words}; times measured meanwhile are not to be trusted")


def _announce(
    info: RunInfo,
    cases: list[Case],
    earlier: Run | None,
    again: list[Record],
    folder: Path,
    console: Console,
    asked: run_options.Options,
) -> None:
    if asked.quiet:
        return
    where = info.environment.device_name
    console.print(
        f"{info.suite.name}: {_counted(len(cases))} on {where}, into {folder}", markup=False
    )
    if earlier is None:
        return
    for note in earlier.notes:
        console.print(note, markup=False)
    from reformer_bench.report.coverage import kept_words

    asked_ids = {case.id for case in cases}
    known = [record for record in earlier.records if record.case_id in asked_ids]
    console.print(kept_words(len(cases), known, again), markup=False)


def _counted(n_cases: int) -> str:
    return "1 case" if n_cases == 1 else f"{n_cases} cases"


def _list_cases(
    cases: list[Case],
    asked: run_options.Options,
    device: str,
    executor: Executor,
    console: Console,
) -> int:
    from reformer_bench.cli.progress import case_name
    from reformer_bench.schema.record import NotPredicted
    from reformer_bench.schema.units import format_bytes

    predictions = run_options.predictions(cases, asked, executor)
    width = max(len(case.variant) for case in cases)
    for case in cases:
        line = f"{case.id}  {case_name(case, width)}"
        predicted = predictions.get(case.id)
        if isinstance(predicted, NotPredicted):
            line += f"  {predicted.problem}"
        elif predicted is not None:
            line += f"  ≈ {format_bytes(predicted.peak_bytes)}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{_counted(len(cases))} on {device}; nothing was run", markup=False)
    return 0


def _conclude(
    records: list[Record],
    cases: list[Case],
    folder: Path,
    console: Console,
    quiet: bool,
    baseline: str | None,
) -> int:
    """Print the final table, write the plots, and say where the files are and what is missing."""
    from reformer_bench.cli.console import warn
    from reformer_bench.report.coverage import (
        coverage_words,
        load_words,
        lost_variants,
        retry_words,
    )
    from reformer_bench.report.plots.files import write_plots
    from reformer_bench.report.tables import summary_table
    from reformer_bench.schema.record import Outcome
    from reformer_bench.store import RECORDS

    measured = any(record.outcome is Outcome.OK for record in records)
    written = write_plots(records, folder, formats=("png", "svg")) if measured else []
    asked_ids = {case.id for case in cases}
    ended = [record for record in records if record.case_id in asked_ids]
    if not quiet:
        console.print()
        console.print(summary_table(records, baseline))
        console.print()
        for path in (folder / RECORDS, *written):
            console.print(str(path), markup=False, soft_wrap=True)
        console.print(coverage_words(ended), markup=False)
        again = retry_words(ended, folder)
        if again is not None:
            console.print(again, markup=False, soft_wrap=True)
        words = load_words(ended)
        if words is not None:
            warn(words)
    if not measured:
        click.echo("Error: no case finished, so nothing was measured", err=True)
        return exits.NOTHING_MEASURED
    lost = lost_variants(ended)
    if lost:
        click.echo(
            f"Error: nothing was measured of {', '.join(lost)}: time limits were met while other "
            f"processes took the processors; --out {folder} --retry runs these cases again",
            err=True,
        )
        return exits.NOTHING_MEASURED
    failed = sum(record.outcome is Outcome.ERROR for record in records)
    if failed:
        click.echo(
            f"Error: {_counted(failed)} failed for another reason than memory or time", err=True
        )
        return exits.CASE_ERROR
    return 0
