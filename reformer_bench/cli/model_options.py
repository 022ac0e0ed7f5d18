"""The options of commands that describe a model without a suite, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reformer_bench.spec.devices import DEVICE_PROFILES, DeviceProfile, device_profile
from reformer_bench.spec.errors import InputError

if TYPE_CHECKING:
    from reformer_bench.spec.case import Case

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
    from reformer_bench.spec.units import parse_bytes

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
    from reformer_bench.run.adhoc import adhoc_cases, adhoc_suite, preset_names

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
