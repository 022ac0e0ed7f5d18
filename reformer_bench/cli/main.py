"""The command group: which commands there are, and how errors become exit codes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from reformer_bench import __version__
from reformer_bench.cli.completion import add_completion
from reformer_bench.cli.exits import Exit
from reformer_bench.schema.errors import InputError, did_you_mean, why

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Longer than closing files and ending workers takes.
_PATIENCE_S = 2.0


@contextmanager
def ended_by_signals(patience_s: float = _PATIENCE_S) -> Iterator[Callable[[], bool]]:
    """Raise KeyboardInterrupt on SIGTERM as on SIGINT, for as long as the block runs.

    Yields a function that tells whether one has come. An interrupt may meet code whose exceptions
    go nowhere (an import that is let fail, a destructor, a callback of torch's): while the block
    doesn't end, it is raised again. Signals that the caller has the process ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    timers: list[threading.Timer] = []

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(patience_s, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timers.append(timer)
        timer.start()
        raise KeyboardInterrupt

    def silent_about_interrupts(unraisable: Any) -> None:
        # An interrupt that went nowhere is raised again, and needs no words.
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            hook(unraisable)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    sys.unraisablehook = silent_about_interrupts
    try:
        yield lambda: bool(timers)
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


COMMANDS = (
    "run", "predict", "max-len", "validate", "show", "plot", "baseline", "check", "export",
    "claims", "recommend", "suites", "env",
)  # fmt: skip
"""Each command is in a module of ``reformer_bench.cli`` of its name, under its name."""


class InterruptedByUserError(Exception):
    """Ctrl-C, or a request to terminate."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"reformer_bench.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return add_completion(command)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command as click does, but let an interrupt be told in one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # click's own handling would add an empty line.
            raise InterruptedByUserError from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command as click does, and suggest the nearest name where there is none."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}{hint} (allowed: {', '.join(COMMANDS)})")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reformer-bench")
def cli() -> None:
    """What each memory technique for long-sequence Transformers costs and saves, measured."""


def _hint(error: click.ClickException) -> str:
    """Return the value that was probably meant, where an option takes one of several."""
    if not isinstance(error, click.BadParameter) or error.param is None:
        return ""
    wrong = re.match(r"'(.*)' is not one of ", error.message)
    kind = error.param.type
    if wrong is None or not isinstance(kind, click.Choice):
        return ""
    return did_you_mean(wrong[1], kind.choices).replace(", d", " D")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: the console script.

    Exit codes: 0 done; 1 ``check`` found a regression, or a case of ``run`` failed; 2 the input was
    wrong, said in one line; 3 ``check`` found nothing comparable; 4 nothing was measured, or cases
    are missing; 130 interrupted.
    """
    with ended_by_signals() as asked_to_end:
        try:
            code = cli.main(args=arguments, prog_name="reformer-bench", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(Exit.INPUT)
        except (click.Abort, KeyboardInterrupt, InterruptedByUserError):
            _exit_interrupted()
        except Exception as error:
            if asked_to_end():
                # An interrupt inside of an import or of torch comes out as something else.
                _exit_interrupted()
            _exit_for(error)
    sys.exit(code if isinstance(code, int) else 0)


def _exit_interrupted() -> NoReturn:
    click.echo("Interrupted.", err=True)
    sys.exit(Exit.INTERRUPTED)


def _exit_for(error: Exception) -> NoReturn:
    """Say in one line what the user can mend, and exit; raise anything else again."""
    if isinstance(error, click.ClickException):
        click.echo(f"Error: {error.format_message()}{_hint(error)}", err=True)
        sys.exit(error.exit_code)
    if isinstance(error, InputError):
        click.echo(f"Error: {error}", err=True)
        sys.exit(Exit.INPUT)
    if isinstance(error, OSError):
        # What no command foresaw: a disk that is full, a folder that may not be looked into.
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {where}{why(error)}", err=True)
        sys.exit(Exit.INPUT)
    raise error
