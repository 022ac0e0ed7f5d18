"""The records of several runs together, for commands that judge or choose by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.spec.record import Record


def _machine(record: Record) -> str:
    """Name in words what decides the time of a measurement."""
    env = record.environment
    threads = f", {env.torch_threads} threads" if env.device_kind == "cpu" else ""
    return f"{env.device_name}{threads}, torch {env.torch_version}, host {env.hostname_hash[:6]}"


def load_records(runs: tuple[Path, ...]) -> list[Record]:
    """Load the records of several runs; InputError where they were measured on different
    machines.
    """
    from reformer_bench.analysis.quantities import is_measured
    from reformer_bench.store import load_run

    records: list[Record] = []
    measured: dict[str, Path] = {}
    predicted: dict[str, Path] = {}
    for path in runs:
        run = load_run(path)
        for note in run.notes:
            click.echo(note, err=True)
        for record in run.records:
            devices = measured if is_measured(record) else predicted
            devices.setdefault(_machine(record), path)
        records += run.records
    if not records:
        raise InputError(f"{runs[0]}: the run has no records yet")
    # Predictions for another device may stand beside measurements.
    devices = measured or predicted
    if len(devices) > 1:
        (one, first), (other, second), *_ = devices.items()
        raise InputError(
            f"{first} was measured on {one!r} and {second} on {other!r}: give one machine's runs"
        )
    return records
