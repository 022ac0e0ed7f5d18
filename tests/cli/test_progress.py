"""Progress: aligned plain lines, a live line in a terminal, nothing when quiet."""

import io

import pytest
from rich.console import Console

from reformer_bench.cli.progress import LiveLine, PlainLines, Silent, case_line, make_reporter
from reformer_bench.run.session import Progress
from reformer_bench.spec.record import Outcome
from tests.run.builders import case, record

CASES = [case("reformer", length=4096), case("transformer", length=512, batch=2)]


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def progress(one, done: int, *, ended: bool = True) -> Progress:
    return Progress(
        case=one.case,
        record=one if ended else None,
        done=done,
        total=12,
        elapsed_s=5.0,
        left_s=75.0,
        peak_bytes=2**30,
    )


def test_lines_of_different_cases_align():
    width = max(len(one.variant) for one in CASES)
    first, second = (case_line(record(one), width) for one in CASES)
    assert first.index("train_step") == second.index("train_step")
    assert len(first) == len(second)


def test_a_failure_says_its_outcome_and_why():
    line = case_line(record(CASES[0], Outcome.TIMEOUT, message="killed after 60 s"))
    assert line.endswith("timeout: killed after 60 s")


def test_plain_lines_are_written_for_finished_cases_only():
    out = console(terminal=False)
    reporter = make_reporter(out, CASES, quiet=False)
    assert isinstance(reporter, PlainLines)
    reporter.start()
    reporter.tell(progress(record(CASES[0]), 0, ended=False))
    reporter.tell(progress(record(CASES[0]), 1))
    reporter.stop()
    text = out.file.getvalue()
    assert text.startswith("[ 1/12] reformer")
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_terminal_shows_what_runs_what_is_left_and_the_peak():
    out = console(terminal=True)
    reporter = make_reporter(out, CASES, quiet=False)
    assert isinstance(reporter, LiveLine)
    reporter.start()
    reporter.tell(progress(record(CASES[0]), 1))
    reporter.tell(progress(record(CASES[1]), 1, ended=False))
    reporter.stop()
    text = out.file.getvalue()
    for words in ("transformer", "1 of 12 cases", "about 1 min 15 s left", "so far 1 GiB"):
        assert words in text


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_writes_nothing(terminal):
    out = console(terminal=terminal)
    reporter = make_reporter(out, CASES, quiet=True)
    assert isinstance(reporter, Silent)
    reporter.start()
    reporter.tell(progress(record(CASES[0]), 1))
    reporter.stop()
    assert out.file.getvalue() == ""
