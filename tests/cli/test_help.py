"""Help texts: every command says what it does, and every option what it is for."""

from __future__ import annotations

import click
import pytest

from reformer_bench.cli.main import COMMANDS, cli


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_options_explain_themselves(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    assert command.help.split("\n\n")[0].endswith(".")
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [option.name for option in options if not option.help] == []
