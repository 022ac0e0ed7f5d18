"""Progress of a run and of predictions: live in a terminal, plain lines elsewhere, or nothing."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from reformer_bench.cli.progress import LiveLine, PlainLines, progress_of, progress_of_run
from reformer_bench.run.session import Standing
from reformer_bench.schema.record import AllocatorMemory, Memory, Outcome, PhasePeak
from tests.builders import case, record_of

CASES = [case("reformer", length=4096), case("transformer", length=512, batch=2)]


def console(*, terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def standing(one, done: int, *, ended: bool = True) -> Standing:
    return Standing(
        case=one.case,
        records=(one,) if ended else (),
        done=done,
        total=12,
        elapsed_s=5.0,
        left_s=75.0,
        peak_bytes=2**30,
    )


def test_plain_lines_are_written_for_finished_cases_only():
    out = console(terminal=False)
    with progress_of_run(out, CASES) as tell:
        tell(standing(record_of(CASES[0]), 0, ended=False))
        tell(standing(record_of(CASES[0]), 1))
    text = out.file.getvalue()
    assert text.startswith("[ 1/12] reformer")
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_terminal_shows_what_runs_what_is_left_and_the_peak():
    out = console(terminal=True)
    with progress_of_run(out, CASES) as tell:
        tell(standing(record_of(CASES[0]), 1))
        tell(standing(record_of(CASES[1]), 1, ended=False))
    text = out.file.getvalue()
    for words in ("transformer", "1 of 12 cases", "about 1 min 15 s left", "highest peak 1 GiB"):
        assert words in text


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_writes_nothing(terminal):
    out = console(terminal=terminal)
    with progress_of_run(out, CASES, quiet=True) as tell:
        tell(standing(record_of(CASES[0]), 1))
    assert out.file.getvalue() == ""


def measured(variant: str, length: int):
    found = record_of(case(variant, length=length))
    timing = found.timing.model_copy(update={"tokens_per_second": 8_803.0})
    peak = AllocatorMemory(
        source="cpu-allocator-events",
        cold=(PhasePeak(phase="forward", allocated_bytes=58_300_000),),
    )
    return found.model_copy(
        update={"timing": timing, "memory": Memory(allocator=peak), "wall_ms": 34_300.0}
    )


def lines_of(records, *, terminal: bool, width: int) -> list[str]:
    out = console(terminal=terminal, width=width)
    lines = PlainLines(out, [one.case for one in records])
    lines.tell(Standing(records[0].case, tuple(records), len(records), 72, 5.0, None, None))
    return [line.rstrip() for line in Text.from_ansi(out.file.getvalue()).plain.splitlines()]


def test_lines_of_different_cases_align():
    mixed = [measured("reformer", 4096), measured("transformer", 512)]
    mixed[1] = mixed[1].model_copy(
        update={"case": case("transformer", length=512, workload="forward")}
    )
    first, second = lines_of(mixed, terminal=False, width=100)
    assert first.index("train_step") == second.index("forward")
    assert len(first) == len(second)


def test_a_failure_says_its_outcome_and_why():
    failed = record_of(CASES[0], Outcome.TIMEOUT, message="killed after 60 s")
    (line,) = lines_of([failed], terminal=False, width=100)
    assert line.endswith("time limit: killed after 60 s")


def test_the_longest_name_of_table_3_has_its_figures_on_one_line_of_80_columns():
    (line,) = lines_of([measured("chunked-reversible-transformer", 512)], terminal=True, width=80)
    assert line.startswith("[ 1/72] chunked-reversible-transformer")
    assert line.endswith("55.6 MiB  8,803 tokens/s  34.3 s")
    assert len(line) <= 80


@pytest.mark.parametrize("width", [40, 60, 70])
def test_a_line_that_does_not_fit_is_broken_between_its_columns(width):
    lines = lines_of([measured("chunked-reversible-transformer", 512)], terminal=True, width=width)
    assert len(lines) > 1
    assert all(len(line) <= width for line in lines)
    for figure in ("55.6 MiB", "8,803 tokens/s", "34.3 s"):
        assert any(figure in line for line in lines), figure


def test_a_long_message_is_broken_between_words_in_a_terminal_and_not_in_a_file():
    failed = [record_of(CASES[0], Outcome.HOST_OOM, message=" ".join(["allocate"] * 20))]
    broken = lines_of(failed, terminal=True, width=80)
    assert len(broken) > 1
    assert all(len(line) <= 80 for line in broken)
    assert len(lines_of(failed, terminal=False, width=80)) == 1


def test_what_was_not_started_for_one_reason_is_one_line():
    stop = record_of(case(length=512), Outcome.TIMEOUT, message="killed after 45 s")
    stop = stop.model_copy(update={"wall_ms": 45e3})
    skipped = [
        record_of(
            case(length=n), Outcome.SKIPPED, message="not tried: reformer met its limit at 512"
        )
        for n in (1024, 2048, 4096)
    ]
    skipped = [one.model_copy(update={"wall_ms": 0.0}) for one in skipped]
    lines = lines_of([stop, *skipped], terminal=False, width=100)
    assert [line.split(maxsplit=4)[1:] for line in lines] == [
        ["1/72]", "reformer", "512", "time limit: killed after 45 s"],
        ["4/72]", "reformer", "1K..4K", "not tried: reformer met its limit at 512"],
    ]


def test_the_status_fits_in_80_columns_and_counts_down():
    now = [0.0]
    out = console(terminal=True, width=80)
    live = LiveLine(out, CASES, clock=lambda: now[0])
    live.tell(standing(record_of(CASES[0]), 1, ended=False))
    for seconds, words in ((0.0, "about 1 min 15 s left"), (30.0, "about 45 s left")):
        now[0] = seconds
        with out.capture() as captured:
            out.print(live.status())
        text = Text.from_ansi(captured.get()).plain
        assert words in text
        assert all(len(line) <= 80 for line in text.splitlines())


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
    with progress_of("finding", 1, noun="model", console=out, clock=lambda: now[0]) as tell:
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
