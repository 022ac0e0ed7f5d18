"""The options of ``reformer-bench run``, and what becomes of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.run.executor import Executor
    from reformer_bench.spec.case import Case
    from reformer_bench.spec.predicted import Predictions
    from reformer_bench.spec.suite import Suite
    from reformer_bench.store import RunInfo

# Below this not even a worker's own buffers fit, and a forgotten unit is likelier than a wish.
_LEAST_BUDGET_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Options:
    """The options as the user wrote them."""

    suite: str
    seq_len: str | None
    settings: tuple[str, ...]
    variants: str | None
    device: str
    out: Path | None
    memory_budget: str | None
    case_timeout: float | None
    dry_run: bool
    executor: str
    quiet: bool
    retry: bool = False
    predict: bool = True
    device_profile: str | None = None

    @property
    def predicts_only(self) -> bool:
        """Whether nothing is to be run."""
        return self.device == "none"


def resolved_suite(asked: Options) -> Suite:
    """Return the suite asked for, with everything that the options change."""
    from reformer_bench.spec.suite import find_suite

    return _changed(find_suite(asked.suite), asked)


def resolved_parts(asked: Options) -> tuple[Suite, list[Suite]]:
    """Return the suite asked for and the suites that it stands for (itself, or those it includes),
    with everything that the options change.
    """
    from reformer_bench.spec.suite import find_suite, parts_of

    suite = find_suite(asked.suite)
    if not suite.includes:
        changed = _changed(suite, asked)
        return changed, [changed]
    for option, given in (("--variants", asked.variants), ("--device", asked.predicts_only)):
        if given:
            raise InputError(
                f"{option} {given if isinstance(given, str) else 'none'}: suite {suite.name!r} "
                f"includes others, which have variants of their own: name one of them with "
                f"--suite ({', '.join(suite.includes)})"
            )
    return suite, [_changed(part, asked) for part in parts_of(suite)]


def _changed(suite: Suite, asked: Options) -> Suite:
    from reformer_bench.run import overrides

    suite = overrides.with_settings(suite, asked.settings)
    if asked.variants is not None:
        suite = overrides.with_variants(suite, asked.variants.split(","))
    if asked.seq_len is not None:
        suite = overrides.with_lengths(suite, asked.seq_len)
    if asked.case_timeout is not None:
        suite = overrides.with_case_timeout(suite, asked.case_timeout)
    return suite


def memory_budget(asked: Options) -> int | None:
    """Return the budget in bytes; None where none was given."""
    from reformer_bench.spec.units import format_bytes, parse_bytes

    if asked.memory_budget is None:
        return None
    try:
        count = parse_bytes(asked.memory_budget)
    except ValueError as error:
        raise InputError(f"--memory-budget: {error}") from None
    if count < _LEAST_BUDGET_BYTES:
        raise InputError(
            f"--memory-budget: {asked.memory_budget!r} is {format_bytes(count)}, less than any "
            f"case needs (at least {format_bytes(_LEAST_BUDGET_BYTES)}; "
            "write the unit, as in 16GiB)"
        )
    return count


def check_budget(info: RunInfo) -> None:
    """Raise InputError where the budget is more than the device has."""
    from reformer_bench.spec.units import format_bytes

    budget, memory = info.memory_budget_bytes, info.environment.device_memory_bytes
    if budget is not None and memory is not None and budget > memory:
        raise InputError(
            f"--memory-budget: {format_bytes(budget)} is more than the {format_bytes(memory)} of "
            f"{info.environment.device_name}"
        )


def predictions(
    cases: list[Case],
    asked: Options,
    executor: Executor,
    kept: Predictions | None = None,
) -> Predictions:
    """What each case will take, by its id; nothing where the user asked for none.

    ``kept`` are those made before, which are not made again.
    """
    if not asked.predict:
        return {}
    from reformer_bench.cli.predicting import progress_of
    from reformer_bench.run.executors.local import LocalExecutor
    from reformer_bench.run.predictions import predict_all

    warm = executor.server if isinstance(executor, LocalExecutor) else None
    found = dict(kept or {})
    missing = [case for case in cases if case.id not in found]
    with progress_of("predicting memory", len(missing), quiet=asked.quiet) as tell:
        found.update(predict_all(missing, asked.device_profile, warm, tell))
    return found


def make_executor(asked: Options) -> Executor:
    """Make the executor of a name."""
    if asked.executor == "slurm":
        from reformer_bench.run.executors.slurm import SlurmExecutor

        return SlurmExecutor((asked.out.parent if asked.out else Path("results")) / ".submitit")
    from reformer_bench.run.executors.local import LocalExecutor

    return LocalExecutor()


def check_installed(suite: Suite) -> None:
    """Raise InputError, before anything is measured, where a variant's library is missing."""
    from reformer_bench.peers.installed import check_installed as check_library
    from reformer_bench.spec.suite import fields_of

    for name, variant in suite.variants.items():
        saved = (suite.model, variant.model, *(table.model for table in suite.device.values()))
        from_checkpoint = any("checkpoint" in fields_of(table) for table in saved)
        try:
            check_library("transformers" if from_checkpoint else variant.implementation)
        except InputError as error:
            raise InputError(
                f"variant {name}: {error}; --variants can leave the variant out"
            ) from None
