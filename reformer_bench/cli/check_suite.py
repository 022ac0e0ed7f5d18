"""Runs a suite for ``reformer-bench check``: every case predicted and measured, nothing printed."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.spec.record import Record
    from reformer_bench.spec.suite import Suite


def run_suite(name: str, device: str, out: Path | None) -> list[Record]:
    """The records of a suite run now, kept in ``out`` where it is given.

    Raises InputError for a suite or device that doesn't exist, or a folder that isn't empty.
    """
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.expand import check_device, expand
    from reformer_bench.spec.suite import find_suite

    suite = find_suite(name)
    check_device(device)
    expand(suite, "cpu" if device == "auto" else device)
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty: take another folder")
    executor = LocalExecutor()
    try:
        if out is not None:
            return _run(suite, device, out, executor)
        with tempfile.TemporaryDirectory(prefix="reformer-bench-") as folder:
            return _run(suite, device, Path(folder), executor)
    finally:
        executor.close()


def _run(suite: Suite, device: str, folder: Path, executor: LocalExecutor) -> list[Record]:
    from reformer_bench.run.expand import device_kind, expand
    from reformer_bench.run.predictions import predict_all
    from reformer_bench.run.session import Session
    from reformer_bench.store import RunInfo, RunWriter

    description = executor.describe(device)
    cases = expand(suite, description.device)
    click.echo(f"{suite.name}: measuring {len(cases)} cases", err=True)
    info = RunInfo(
        suite=suite,
        device=description.device,
        command=("reformer-bench", *sys.argv[1:]),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=description.environment,
    )
    with RunWriter(folder, info) as writer:
        session = Session(
            executor,
            writer,
            cases,
            suite.on(device_kind(description.device)),
            description.environment,
            predictions=predict_all(cases, warm=executor.server),
        )
        return session.run()
