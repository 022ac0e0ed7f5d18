import re
from typing import Any

import pytest
from rich.console import Console, RenderableType

from reformer_bench.report.tables import breakdown_table, detail_table, summary_table
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB, MIB
from tests.builders import as_predicted, record, sweep


def render(table: RenderableType, width: int = 100, *, styles: bool = False) -> str:
    console = Console(
        width=width, force_terminal=styles, color_system="standard" if styles else None
    )
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def rows(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(rf"\s*{re.escape(name)}\s", line)]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_summary_fits_the_terminal_and_cuts_nothing_off(width: int) -> None:
    text = render(summary_table(sweep("cuda", predictions=True)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "267 GiB" in text


def test_a_case_of_one_step_shows_its_cold_speed() -> None:
    one = record(length=1000)
    assert one.timing is not None
    cold = one.timing.cold.model_copy(update={"total_ms": 500.0})
    timing = one.timing.model_copy(update={"cold": cold, "warm": (), "tokens_per_second": None})
    text = render(summary_table([one.model_copy(update={"timing": timing})]))
    assert "2.00 cold" in text
    assert "Cold: the first step is the only one" in " ".join(text.split())


def test_a_run_of_predictions_has_no_throughput() -> None:
    text = render(summary_table([as_predicted(one) for one in (record(), record(length=1024))]))
    assert "peak memory" in text
    assert "hroughput" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_six_variants_stand_side_by_side(width: int) -> None:
    text = render(summary_table(sweep()), width)
    # Once for memory, once for throughput.
    assert len(rows(text, "8K")) == 2


def test_a_narrow_terminal_gets_blocks_below_each_other() -> None:
    text = render(summary_table(sweep()), 50)
    assert len(rows(text, "8K")) == 4


def test_cells_say_why_a_case_did_not_finish() -> None:
    records = [
        record("transformer", 512),
        record("transformer", 1024, Outcome.DEVICE_OOM),
        record("transformer", 2048, Outcome.SKIPPED),
        record("reformer", 512),
        record("reformer", 1024, Outcome.TIMEOUT),
        record("reformer", 2048, Outcome.OVER_BUDGET, predicted=23 * GIB),
    ]
    text = render(summary_table(records))
    assert rows(text, "1K")[0].split() == ["1K", "out", "of", "memory", "time", "limit"]
    assert rows(text, "2K")[0].split() == ["2K", "–", "over", "budget"]
    assert "≈ 23 GiB" in text
    assert "predicted not to fit" in text


def test_where_nothing_finished_the_note_says_that_there_is_no_peak() -> None:
    text = render(summary_table([record("transformer", 512, Outcome.TIMEOUT)]))
    assert "no case finished, so no peak was measured" in " ".join(text.split())


def test_a_prediction_stands_where_nothing_was_measured_and_is_marked() -> None:
    records = [
        record("reformer", 512),
        record("reformer", 1024, Outcome.TIMEOUT, predicted=3 * GIB),
        record("reformer", 2048, Outcome.SKIPPED, predicted=6 * GIB),
        record("reformer", 4096, Outcome.SKIPPED),
    ]
    text = render(summary_table(records), styles=False)
    assert rows(text, "1K")[0].split() == ["1K", "time", "limit"]
    assert "≈ 3 GiB" in text
    assert rows(text, "2K")[0].split() == ["2K", "≈", "6", "GiB"]
    assert rows(text, "4K")[0].split() == ["4K", "–"]
    # Speeds are not predicted.
    assert rows(text, "2K")[1].split() == ["2K", "–"]
    assert "≈: the predicted peak, nothing was measured" in " ".join(text.split())
    assert "≈" not in render(summary_table([record(predicted=3 * GIB)]))


def test_the_best_figure_of_a_row_is_bold() -> None:
    records = [record("transformer", peak=300 * MIB), record("reformer", peak=100 * MIB)]
    text = render(summary_table(records), styles=True)
    assert re.search(r"\x1b\[1m *100 MiB", text)
    assert not re.search(r"\x1b\[1m *300 MiB", text)


def test_a_single_variant_has_no_best() -> None:
    text = render(summary_table([record()]), styles=True)
    assert not re.search(r"\x1b\[1m *217 MiB", text)


@pytest.mark.parametrize(
    ("samples", "warns"), [((100.0, 101.0, 102.0), False), ((100.0, 150.0, 300.0), True)]
)
def test_a_large_spread_is_told(samples: tuple[float, ...], warns: bool) -> None:
    text = render(summary_table([record(samples_ms=samples)]))
    assert ("Samples scatter" in " ".join(text.split())) is warns
    if warns:
        assert "67% of the median (reformer at 1K)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({}, "parameters, gradients and Adam's state"),
        ({"workload": "forward"}, "includes the parameters; there are no gradients"),
        ({"workload": "attention"}, "parameters and gradients; there is no optimizer"),
    ],
)
def test_the_note_says_what_a_peak_includes(case: dict[str, Any], words: str) -> None:
    text = " ".join(render(summary_table([record(**case)])).split())
    assert words in text
    assert "PyTorch's CPU allocator" in text
    assert "Intel Xeon Platinum 8481C, 2 threads; PyTorch 2.13.0" in text
    assert "2 layers, d_model 256, d_ff 1024, 4 heads" in text


def test_what_is_counted_has_its_plural() -> None:
    one = record(model={"n_layers": 1, "n_heads": 1, "n_hashes": 1})
    text = " ".join(render(summary_table([one, one])).split())
    assert "1 layer, d_model 256, d_ff 1024, 1 head, " in text
    assert "1 earlier record of cases that were run again is not shown." in text
    text = " ".join(render(summary_table([record()] * 3)).split())
    assert "2 layers, d_model 256, d_ff 1024, 4 heads, " in text
    assert "2 earlier records of cases that were run again are not shown." in text


def test_finished_without_samples_is_not_a_zero() -> None:
    text = render(summary_table([record(samples_ms=())]))
    assert "217 MiB" in text
    assert "5.12 cold" in rows(text, "1K")[1]


def test_details_name_every_peak() -> None:
    text = render(detail_table([record(device="cuda", predicted=220 * MIB)]))
    for name in ("allocated", "reserved", "NVML", "process", "resident", "predicted", "overhead"):
        assert name in text
    assert "median of 3 samples, interquartile range 1 ms (1.0%)" in text
    assert "of the speed of one large matrix product" in text
    assert "that reformer-bench took to start and stop the case" in text


def test_details_show_the_message_of_a_failure() -> None:
    text = render(detail_table([record(outcome=Outcome.ERROR, message="shape [2] expected")]))
    assert "shape [2] expected" in text


@pytest.mark.parametrize("width", [80, 100])
def test_breakdown_fits(width: int) -> None:
    text = render(breakdown_table(sweep()), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "temporary" in text


@pytest.mark.parametrize("records", [[], [record(outcome=Outcome.DEVICE_OOM)]])
def test_nothing_to_show_is_said(records: list[Record]) -> None:
    assert "no case" in render(breakdown_table(records))
    render(summary_table(records))
    render(detail_table(records))


def test_names_are_text_and_not_markup() -> None:
    assert "[red]x" in render(summary_table([record("[red]x")]))
    assert "[red]x" in render(detail_table([record("[red]x")]))
    assert "[red]x" in render(breakdown_table([record("[red]x")]))
