"""Shell completion: the names that options take, so that a shell can offer them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from reformer_bench.schema.errors import InputError

Names = Callable[[click.Context], Iterable[str]]


class Named(click.types.StringParamType):
    """Text that is one of some names, or several with commas; other text is let through."""

    def __init__(self, names: Names, *, several: bool = False, files: bool = False) -> None:
        """``names`` finds them from what stands on the line already; ``files`` may be named too."""
        self._names = names
        self._several = several
        self._files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that go on from what was typed."""
        before, comma, last = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        taken = set(before.split(","))
        try:
            names = [name for name in self._names(ctx) if name not in taken]
        except (InputError, OSError):
            # There is no line to say it on; the command itself will.
            return []
        found = [CompletionItem(f"{before}{comma}{n}") for n in names if n.startswith(last)]
        if self._files and not found:
            found = [CompletionItem(incomplete, type="file")]
        return found


class Setting(click.types.StringParamType):
    """``KEY=VALUE`` of ``--set``: the keys, and the values of those that take names."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the keys and values that go on from what was typed."""
        key, equals, _ = incomplete.partition("=")
        keys = _switches()
        if not equals:
            return [CompletionItem(f"{name}=") for name in keys if name.startswith(key)]
        lines = (f"{key}={value}" for value in keys.get(key, ()))
        return [CompletionItem(line) for line in lines if line.startswith(incomplete)]


def add_completion(command: click.Command) -> click.Command:
    """Give a command's options their names: an option means the same in every command."""
    for param in command.params:
        known = next((_OPTIONS[flag] for flag in param.opts if flag in _OPTIONS), None)
        if known is not None and type(param.type) is click.types.StringParamType:
            param.type = known
    return command


def _suites(_: click.Context) -> list[str]:
    from reformer_bench.schema.suite import suite_names

    return suite_names()


def _presets(_: click.Context) -> list[str]:
    from reformer_bench.schema.model import PRESETS

    return [*PRESETS, "all"]


def _profiles(_: click.Context) -> list[str]:
    from reformer_bench.schema.devices import DEVICE_PROFILES

    return list(DEVICE_PROFILES)


def _variants(ctx: click.Context) -> list[str]:
    """Return the variants of the suite that stands on the line, or else of the run."""
    suite, run = ctx.params.get("suite"), ctx.params.get("run")
    if run is None and ctx.args:
        # An option that still waits for its value keeps click from giving arguments their names.
        run = ctx.args[0]
    if suite is not None:
        from reformer_bench.schema.suite import find_suite

        return list(find_suite(suite).variants)
    if run is None:
        return []
    from reformer_bench.store import load_run

    return list(dict.fromkeys(record.case.variant for record in load_run(Path(run)).records))


def _kinds(_: click.Context) -> list[str]:
    from reformer_bench.schema.model import Attention

    return [kind.value for kind in Attention]


def _switches() -> dict[str, tuple[str, ...]]:
    """Return each key of ``--set`` with the names it takes, none for numbers and text."""
    from reformer_bench.schema.model import ModelConfig
    from reformer_bench.schema.suite import Suite

    keys = {f"model.{name}": _values(f.annotation) for name, f in ModelConfig.model_fields.items()}
    keys["model.checkpoint"] = ()
    own = ("lengths", "batches", "tokens", "workloads", "optimizer", "seed")
    return keys | {name: _values(Suite.model_fields[name].annotation) for name in own}


def _values(annotation: Any) -> tuple[str, ...]:
    """Return the names that a field takes, whatever they stand inside of."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(name for inner in get_args(annotation) for name in _values(inner))


_OPTIONS: dict[str, click.types.StringParamType] = {
    "--suite": Named(_suites, files=True),
    "--preset": Named(_presets),
    "--variants": Named(_variants, several=True),
    "--relative-to": Named(_variants),
    "--set": Setting(),
    "--device-profile": Named(_profiles),
    "--attention": Named(_kinds, several=True),
    "--device": Named(lambda _: ("auto", "cpu", "cuda")),
}
