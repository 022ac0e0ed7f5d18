"""Progress of predictions: a bar in a terminal, lines elsewhere, nothing when quiet."""

import io

import pytest
from rich.console import Console

from reformer_bench.cli.predicting import progress_of


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80)


def test_without_a_terminal_there_is_a_line_at_both_ends_and_now_and_then_between():
    now, out = [0.0], console(terminal=False)
    with progress_of("predicting", 40, console=out, clock=lambda: now[0]) as tell:
        for _ in range(40):
            now[0] += 1.0
            tell()
    assert out.file.getvalue().splitlines() == [
        "predicting: 40 cases",
        "predicting: 15 of 40 cases",
        "predicting: 30 of 40 cases",
        "predicting: 40 cases done in 40 s",
    ]


def test_the_line_says_what_is_worked_on():
    now, out = [0.0], console(terminal=False)
    with progress_of("finding", 1, unit="models", console=out, clock=lambda: now[0]) as tell:
        now[0] = 20.0
        tell(now="reformer at 4,096 tokens")
    assert "finding: 0 of 1 model, at reformer at 4,096 tokens" in out.file.getvalue()


def test_a_terminal_has_a_bar_that_is_gone_afterwards():
    out = console(terminal=True)
    with progress_of("predicting", 3, console=out) as tell:
        tell()
        tell(now="reformer")
    text = out.file.getvalue()
    assert "predicting: reformer" in text
    assert "1/3" in text
    assert "\n" not in text.rpartition("\x1b[2K")[2]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("total", "quiet"), [(3, True), (0, False)], ids=["quiet", "nothing"])
def test_there_may_be_nothing_to_show(terminal, total, quiet):
    out = console(terminal=terminal)
    with progress_of("predicting", total, quiet=quiet, console=out) as tell:
        tell()
    assert out.file.getvalue() == ""
