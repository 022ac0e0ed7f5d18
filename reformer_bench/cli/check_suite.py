"""Runs a suite for ``reformer-bench check``, once it is sure that a baseline can be compared."""

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

from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.analysis.regression import Comparison
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.order import Description
    from reformer_bench.run.session import Notify
    from reformer_bench.spec.case import Case
    from reformer_bench.spec.record import Record
    from reformer_bench.spec.suite import Suite

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
    from reformer_bench.analysis.regression import foresee
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.expand import check_device, expand
    from reformer_bench.spec.suite import find_suite

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
    from reformer_bench.analysis.comparability import is_accepted
    from reformer_bench.measure.instruction_set import environment_to_play

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
    from reformer_bench.spec.units import counted

    count = counted(len(ready.cases), "case")
    click.echo(f"{ready.suite.name}: measuring {count}{_settings_words(ready)}", err=True)
    began = time.monotonic()
    with _kept(out) as folder, _shown(len(ready.cases)) as tell:
        records = _run(ready, folder, tell)
    click.echo(f"{ready.suite.name}: {count} in {time.monotonic() - began:.0f} s", err=True)
    return records


def _settings_words(ready: Prepared) -> str:
    from reformer_bench.measure.instruction_set import LIMIT_OF_ONEDNN
    from reformer_bench.spec.units import counted

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
    from reformer_bench.spec.units import counted

    console = Console(stderr=True, highlight=False)
    with console.status(f"predicting {counted(total, 'case')}") as status:

        def tell(progress: Progress) -> None:
            if not progress.records:
                case = progress.case
                status.update(f"{progress.done + 1} of {total}: {case.variant}, {case.workload}")

        yield tell


def _run(ready: Prepared, folder: Path, notify: Notify) -> list[Record]:
    from reformer_bench.run.expand import device_kind
    from reformer_bench.run.predictions import predict_all
    from reformer_bench.run.session import Session
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
