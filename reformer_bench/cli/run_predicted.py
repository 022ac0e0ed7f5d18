"""``reformer-bench run --device none`` predicts a suite and runs nothing."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.cli import exits, run_options
from reformer_bench.spec.devices import DeviceProfile, device_profile
from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from reformer_bench.run.executor import Executor
    from reformer_bench.spec.record import Environment, Record
    from reformer_bench.spec.suite import Suite


def run_predicted(
    asked: run_options.Options,
    suite: Suite,
    budget: int | None,
    executor: Executor,
    console: Console,
) -> int:
    """Predict every case for a device profile, keep the records, and show them."""
    from reformer_bench.run.expand import expand
    from reformer_bench.run.predictions import predicted_record
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
    from reformer_bench.report.plots import write_plots
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
