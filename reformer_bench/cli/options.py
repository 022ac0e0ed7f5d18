"""``--variants`` and ``--seq-len`` of commands that show a run: a part of its records."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reformer_bench.schema.devices import DEVICE_PROFILES, DeviceProfile, device_profile
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.run.executor import Executor
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Predictions, Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.store import RunInfo


_MOST_NAMES = 12


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The two options, named as those of ``run`` are."""
    command = click.option(
        "--seq-len", metavar="LENGTHS", help="Only these lengths, e.g. 512,1K or 4K..64K."
    )(command)
    return click.option("--variants", metavar="A,B", help="Only these variants.")(command)


def part_of(records: Sequence[Record], variants: str | None, seq_len: str | None) -> list[Record]:
    """The records of the variants and lengths named, all where nothing is.

    Raises InputError where a name or a length is not in the run. A range takes every length of
    the run from its first to its last, not doublings only.
    """
    chosen = list(records)
    if variants is not None:
        names = _variants(variants, list(dict.fromkeys(r.case.variant for r in records)))
        chosen = [record for record in chosen if record.case.variant in names]
    if seq_len is not None:
        lengths = _lengths(seq_len, sorted({record.case.length for record in records}))
        chosen = [record for record in chosen if record.case.length in lengths]
    if not chosen:
        raise InputError("--variants and --seq-len: the run has no such variant at such a length")
    return chosen


def _variants(text: str, known: Sequence[str]) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(names - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        # A run of many suites has more names than a line holds.
        more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
        hint = f"it has: {', '.join(known[:_MOST_NAMES])}{more}"
        if close:
            hint = f"did you mean {close[0]!r}?"
        raise InputError(f"--variants: the run has no variant {name!r}; {hint}")
    if not names:
        raise InputError(f"--variants: names at least one of: {', '.join(known)}")
    return names


def _lengths(text: str, known: Sequence[int]) -> set[int]:
    from reformer_bench.schema.units import format_tokens, parse_length, parse_lengths

    try:
        parse_lengths(text)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None
    found: set[int] = set()
    for item in text.split(","):
        first, dots, last = item.partition("..")
        low = parse_length(first)
        high = parse_length(last) if dots else low
        within = {length for length in known if low <= length <= high}
        if not within:
            shown = ", ".join(map(format_tokens, known))
            raise InputError(f"--seq-len: the run has no length {item.strip()} (it has: {shown})")
        found |= within
    return found


def _machine(record: Record) -> str:
    """Name in words what decides the time of a measurement."""
    env = record.environment
    threads = f", {env.torch_threads} threads" if env.device_kind == "cpu" else ""
    return f"{env.device_name}{threads}, torch {env.torch_version}, host {env.hostname_hash[:6]}"


def load_records(runs: tuple[Path, ...]) -> list[Record]:
    """Load the records of several runs; InputError where they were measured on different
    machines.
    """
    from reformer_bench.claims.quantities import is_measured
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


Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """What the model has to fit in."""

    profile: DeviceProfile
    budget_bytes: int | None
    """None stands for no limit."""


def model_options(command: Command) -> Command:
    """Add --preset, --set, --batch, --dtype, --workload and --optimizer to a command."""
    options = (
        click.option(
            "--preset",
            "presets",
            multiple=True,
            default=("reformer",),
            show_default=True,
            metavar="NAME",
            help="The model: a preset such as reformer or flash-transformer, or all. Repeatable.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a setting of the model, e.g. model.n_layers=12. Repeatable.",
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Sequences in a batch.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float64"]),
            help="What the sublayers compute in (default: float32).",
        ),
        click.option(
            "--workload",
            type=click.Choice(["train_step", "forward", "attention"]),
            default="train_step",
            show_default=True,
            help="What is run: a training step, a forward pass, or one attention layer.",
        ),
        click.option(
            "--optimizer",
            type=click.Choice(["adam", "adafactor", "none"]),
            default="adam",
            show_default=True,
            help="The optimizer of a training step.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def target_options(command: Command) -> Command:
    """Add --device-profile and --memory-budget to a command."""
    profile = click.option(
        "--device-profile",
        "device",
        metavar="NAME",
        help=f"The device it has to fit on: {', '.join(DEVICE_PROFILES)}.",
    )
    budget = click.option(
        "--memory-budget",
        metavar="SIZE",
        help="The memory it has to fit in, instead of a device's, e.g. 16GiB.",
    )
    return profile(budget(command))


def target(device: str | None, memory_budget: str | None) -> Target:
    """Return what the two options say; a budget comes before a device's memory."""
    from reformer_bench.schema.units import parse_bytes

    profile = device_profile(device or "cpu")
    if memory_budget is None:
        return Target(profile, profile.usable_bytes)
    try:
        count = parse_bytes(memory_budget)
    except ValueError as error:
        raise InputError(f"--memory-budget: {error}") from None
    if count < 1:
        raise InputError(f"--memory-budget: expected more than nothing, got {memory_budget!r}")
    return Target(profile, count)


def cases_of(options: dict[str, Any], seq_len: str, kind: str) -> list[Case]:
    """Return the cases that the model options and lengths describe."""
    from reformer_bench.run.overrides import adhoc_cases, adhoc_suite, preset_names

    suite = adhoc_suite(
        preset_names(options["presets"]),
        seq_len=seq_len,
        batch=options["batch"],
        workload=options["workload"],
        optimizer=options["optimizer"],
        dtype=options["dtype"],
        settings=options["settings"],
    )
    return adhoc_cases(suite, "cuda" if kind == "cuda" else "cpu")


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
    from reformer_bench.schema.suite import find_suite

    return _changed(find_suite(asked.suite), asked)


def resolved_parts(asked: Options) -> tuple[Suite, list[Suite]]:
    """Return the suite asked for and the suites that it stands for (itself, or those it includes),
    with everything that the options change.
    """
    from reformer_bench.schema.suite import find_suite, parts_of

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
    from reformer_bench.schema.units import format_bytes, parse_bytes

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
    from reformer_bench.schema.units import format_bytes

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
    from reformer_bench.run.predict import predict_all

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
    from reformer_bench.schema.suite import fields_of

    for name, variant in suite.variants.items():
        saved = (suite.model, variant.model, *(table.model for table in suite.device.values()))
        from_checkpoint = any("checkpoint" in fields_of(table) for table in saved)
        try:
            check_library("transformers" if from_checkpoint else variant.implementation)
        except InputError as error:
            raise InputError(
                f"variant {name}: {error}; --variants can leave the variant out"
            ) from None
