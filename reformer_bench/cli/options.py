"""The options that several commands have, each declared once, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reformer_bench.schema.devices import DEVICE_PROFILES, DeviceProfile, device_profile
from reformer_bench.schema.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.schema.case import Case
    from reformer_bench.schema.record import Record
    from reformer_bench.schema.suite import Suite
    from reformer_bench.store import Run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

LENGTHS_HELP = "Sequence lengths, e.g. 512,1024 or 512..64K (every doubling)."
_MOST_NAMES = 12
_LENGTHS_OF_MODELS = "512..4K"
"""What a model is measured at where neither a suite nor the command line says it."""


def run_argument(*, required: bool = True) -> Decorator:
    """RUN, the folder or the records file of a run."""
    return click.argument("run", required=required, type=click.Path(path_type=Path))


def out_option(text: str, *, folder: bool = True, required: bool = False) -> Decorator:
    """``--out``, a folder or a file to write."""
    kind = click.Path(path_type=Path, file_okay=not folder, dir_okay=folder)
    return click.option("--out", type=kind, required=required, help=text)


def format_option(*formats: str, text: str, required: bool = False) -> Decorator:
    """``--format``, one of some formats; the first is the default, unless one must be given."""
    default = {} if required else {"default": formats[0], "show_default": True}
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(formats),
        required=required,
        help=text,
        **default,  # type: ignore[arg-type]
    )


def set_option(text: str) -> Decorator:
    """``--set KEY=VALUE``, repeatable."""
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=text)


def seq_len_option(text: str = LENGTHS_HELP, default: str | None = None) -> Decorator:
    """``--seq-len``, sequence lengths."""
    shown = default is not None
    return click.option(
        "--seq-len", metavar="LENGTHS", default=default, show_default=shown, help=text
    )


def model_option(text: str) -> Decorator:
    """``--model``, a target; repeatable."""
    return click.option("--model", "targets", multiple=True, metavar="TARGET", help=text)


allow_code_option = click.option(
    "--allow-code",
    is_flag=True,
    help="Run the code that a suite's file names as its models (model_from).",
)
"""``--allow-code``; ``asked_suite`` takes it."""


def variants_option(text: str) -> Decorator:
    """``--variants``, some of the variants."""
    return click.option("--variants", metavar="A,B", help=text)


def device_option(text: str, default: str = "auto") -> Decorator:
    """``--device``, where things run."""
    return click.option("--device", default=default, show_default=True, help=text)


def device_profile_option(text: str, name: str = "device_profile") -> Decorator:
    """``--device-profile``, what is predicted for; ``name`` is that of the parameter."""
    return click.option("--device-profile", name, metavar="NAME", help=text)


def memory_budget_option(text: str) -> Decorator:
    """``--memory-budget``, a size."""
    return click.option("--memory-budget", metavar="SIZE", help=text)


def all_of(*options: Decorator) -> Decorator:
    """Return one decorator in place of several, in the order in which help shows them."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


part_options = all_of(
    variants_option("Only these variants."),
    seq_len_option("Only these lengths, e.g. 512,1K or 4K..64K."),
)
"""The part of a run that is shown; ``part_of`` takes it."""

target_options = all_of(
    device_profile_option(
        f"The device it has to fit on: {', '.join(DEVICE_PROFILES)}.", name="device"
    ),
    memory_budget_option("The memory it has to fit in, instead of a device's, e.g. 16GiB."),
)
"""What a model has to fit in; ``target`` reads it."""

model_options = all_of(
    click.option(
        "--preset",
        "presets",
        multiple=True,
        metavar="NAME",
        help="The model: a preset such as reformer or flash-transformer, or all. Repeatable.",
    ),
    model_option("Any other model: FILE.py:FACTORY, package.module:FACTORY, hf:TYPE or hf:PATH."),
    set_option(
        "Change a setting: model.n_layers=12, config.num_hidden_layers=4 (hf:), args.width=512 "
        "(FACTORY), train.autocast=bfloat16. Repeatable."
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
        type=click.Choice(["train_step", "forward", "eval", "attention"]),
        default="train_step",
        show_default=True,
        help="What is run: a training step, the loss without gradients, inference (--model), or "
        "one attention layer (--preset).",
    ),
    click.option(
        "--optimizer",
        default="adam",
        show_default=True,
        metavar="NAME",
        help="The optimizer of a training step: any of torch.optim, or none.",
    ),
)
"""The model itself, by presets; ``cases_of`` makes cases of it."""


@dataclass(frozen=True)
class Target:
    """What the model has to fit in."""

    profile: DeviceProfile
    budget_bytes: int | None
    """None stands for no limit."""


def target(device: str | None, memory_budget: str | None) -> Target:
    """Return what ``target_options`` say; a budget comes before a device's memory."""
    profile = device_profile(device or "cpu")
    if memory_budget is None:
        return Target(profile, profile.usable_bytes)
    count = budget_bytes(memory_budget)
    if count < 1:
        raise InputError(f"--memory-budget: expected more than nothing, got {memory_budget!r}")
    return Target(profile, count)


def budget_bytes(text: str) -> int:
    """Return the bytes of ``--memory-budget``."""
    from reformer_bench.schema.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise InputError(f"--memory-budget: {error}") from None


def cases_of(options: dict[str, Any], seq_len: str, kind: str) -> list[Case]:
    """Return the cases that ``model_options`` and lengths describe."""
    from reformer_bench.run.overrides import cases_of_models
    from reformer_bench.schema.case import device_kind

    others = {name: v for name, v in options.items() if name not in ("presets", "targets")}
    return cases_of_models(models_of(options), device_kind(kind), seq_len=seq_len, **others)


def models_of(options: dict[str, Any]) -> tuple[str, ...]:
    """Return the models that ``--preset`` and ``--model`` name; the reformer where none is."""
    from reformer_bench.run.overrides import model_names

    return model_names(options["presets"], options["targets"]) or ("reformer",)


def asked_suite(
    name: str | None, targets: Sequence[str], seq_len: str | None, *, allow_code: bool
) -> Suite:
    """Return the suite of ``--suite``, that of ``--model``, or the first with the second's models.

    Code that a suite's file names is the file's, not the command line's: InputError says so where
    ``--allow-code`` isn't given.
    """
    from reformer_bench.run.overrides import suite_of_models, with_models
    from reformer_bench.schema.suite import find_suite

    if name is None:
        if not targets:
            raise InputError("give --suite, --model, or both")
        return suite_of_models(targets, seq_len=seq_len or _LENGTHS_OF_MODELS)
    suite = find_suite(name)
    if targets and not suite.includes:
        return with_models(suite, targets)
    for variant, table in suite.variants.items():
        if table.target is not None and table.target.runs_code and not allow_code:
            raise InputError(
                f"suite {suite.name}, variant {variant}: model_from = {table.model_from!r} runs "
                "code of this name; --allow-code says that it may"
            )
    return suite


def open_run(path: Path) -> Run:
    """Load a run that has records, and say on stderr what had to be passed over."""
    from reformer_bench.store import load_run

    run = load_run(path)
    if not run.records:
        raise InputError(f"{path}: the run has no records yet")
    for note in run.notes:
        click.echo(note, err=True)
    return run


def load_records(runs: Sequence[Path]) -> list[Record]:
    """Load the records of several runs; InputError where different machines measured them."""
    from reformer_bench.store import load_run

    records: list[Record] = []
    measured: dict[str, Path] = {}
    predicted: dict[str, Path] = {}
    for path in runs:
        run = load_run(path)
        for note in run.notes:
            click.echo(note, err=True)
        for record in run.records:
            devices = measured if record.is_measured else predicted
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


def _machine(record: Record) -> str:
    """Name in words what decides the time of a measurement."""
    env = record.environment
    threads = f", {env.torch_threads} threads" if env.device_kind == "cpu" else ""
    return f"{env.device_name}{threads}, torch {env.torch_version}, host {env.hostname_hash[:6]}"


def part_of(records: Sequence[Record], variants: str | None, seq_len: str | None) -> list[Record]:
    """Return the records of the variants and lengths named, all where nothing is.

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
    from difflib import get_close_matches

    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(names - set(known)):
        close = get_close_matches(name, known, n=1)
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
