"""The Slurm executor runs a suite as one job array; each job measures as a local run does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reformer_bench.run import entry
from reformer_bench.run.executor import Description, WorkOrder
from reformer_bench.run.executors.local import LocalExecutor
from reformer_bench.run.forkserver import one_line
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.record import Outcome, Record

# A job must outlive its case by the start of Python and torch on a cold file system.
_START_UP_MINUTES = 5


class SlurmExecutor:
    """Runs every order at once, so that a shorter length can't spare the longer ones here.

    Partition, account and the like come from Slurm's own SBATCH_* variables.
    """

    takes_all = True

    def __init__(self, logs: Path, cluster: str = "slurm", poll_s: float = 5.0) -> None:
        """``logs`` keeps submitit's files. InputError where submitit is not installed."""
        try:
            import submitit
        except ImportError:
            raise InputError(
                "--executor slurm: submitit is not installed: pip install 'reformer-bench[slurm]'"
            ) from None
        self._submitit: Any = submitit
        self._logs = logs
        self._cluster = cluster
        self._poll_s = poll_s
        self._jobs: list[Any] = []

    def describe(self, device: str) -> Description:
        """Say what a device is in a job; InputError for ``auto``: a job must say what it needs."""
        if device == "auto":
            raise InputError("--device: with --executor slurm, say cpu or cuda")
        job = self._executor(device, minutes=_START_UP_MINUTES).submit(entry.describe, device)
        self._jobs.append(job)
        found = job.result()
        if isinstance(found, InputError):
            raise found
        assert isinstance(found, Description)
        return found

    def run(self, orders: Sequence[WorkOrder]) -> Iterator[Record]:
        """Yield a record for every order, in the order in which the jobs end."""
        if not orders:
            return
        minutes = _START_UP_MINUTES + math.ceil(max(order.timeout_s for order in orders) / 60)
        executor = self._executor(orders[0].case.device, minutes)
        jobs = executor.map_array(measure_in_job, orders)
        self._jobs.extend(jobs)
        asked = {job.job_id: order for job, order in zip(jobs, orders, strict=True)}
        for job in self._submitit.helpers.as_completed(jobs, poll_frequency=self._poll_s):
            yield self._record(job, asked[job.job_id])

    def close(self) -> None:
        """Cancel the jobs that have not ended."""
        for job in self._jobs:
            if not job.done():
                job.cancel()

    def _executor(self, device: str, minutes: int) -> Any:
        try:
            executor = self._submitit.AutoExecutor(folder=self._logs, cluster=self._cluster)
        except RuntimeError as error:
            raise InputError(f"--executor slurm: {error}") from None
        executor.update_parameters(
            name="reformer-bench",
            timeout_min=minutes,
            gpus_per_node=0 if device == "cpu" else 1,
            tasks_per_node=1,
            nodes=1,
        )
        return executor

    def _record(self, job: Any, order: WorkOrder) -> Record:
        """Return the job's record, or one that says how the job itself failed."""
        try:
            record = job.result()
            assert isinstance(record, Record)
            return record
        except Exception as error:
            assert order.environment is not None
            message = f"job {job.job_id}: {one_line(error)} (log: {job.paths.stderr})"
            return Record.not_measured(order.case, Outcome.ERROR, message, order.environment)


def measure_in_job(order: WorkOrder) -> Record:
    """Measure one case inside a job, under that machine's own environment."""
    executor = LocalExecutor()
    try:
        (record,) = executor.run([replace(order, environment=None)])
        return record
    finally:
        executor.close()
