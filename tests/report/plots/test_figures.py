"""A single length is drawn as bars that say their figures, and why one has none."""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reformer_bench.report.groups import group_records
from reformer_bench.report.plots.figures import bars, bars_figure
from reformer_bench.report.plots.files import write_plots
from reformer_bench.report.plots.style import drawing, looks
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB, MIB
from tests.builders import record
from tests.report.plots.test_files import assert_tidy, words_of

ONE_LENGTH = [
    record("transformer", 1024, peak=400 * MIB, samples_ms=[100.0, 200.0, 300.0]),
    record("reformer", 1024, peak=100 * MIB, samples_ms=[50.0]),
    record("flash-transformer", 1024, Outcome.TIMEOUT, predicted=GIB),
    record("mine", 1024, Outcome.DEVICE_OOM),
]


def figure_of(records: list[Record]) -> Figure:
    (group,) = group_records(records)
    found = bars(group)
    with drawing():
        return bars_figure(group, found, ["memory", "throughput"], looks(b.name for b in found))


def rectangles(figure: Figure, panel: int) -> list[Rectangle]:
    return [part for part in figure.axes[panel].patches if isinstance(part, Rectangle)]


def test_bars_are_as_long_as_the_figures_and_predicted_ones_are_hatched():
    memory, rates = (rectangles(figure_of(ONE_LENGTH), panel) for panel in (0, 1))
    assert [bar.get_width() for bar in memory] == [400 * MIB, 100 * MIB, GIB]
    assert [bool(bar.get_hatch()) for bar in memory] == [False, False, True]
    assert [bar.get_width() for bar in rates] == [1024 / 0.2, 1024 / 0.05]


def test_each_bar_says_its_figure_or_why_there_is_none():
    words = words_of(figure_of(ONE_LENGTH))
    for part in ("400 MiB", "1 GiB, time limit", "out of memory", "5,120", "1K tokens", "Hatched"):
        assert part in words


def test_no_text_overlaps_or_leaves_the_figure():
    assert_tidy(figure_of(ONE_LENGTH))


def test_variants_without_a_second_length_are_bars_and_not_dots(tmp_path):
    written = write_plots(ONE_LENGTH, tmp_path, ("svg",))
    assert {path.stem for path in written} == {
        "train_step-memory",
        "train_step-throughput",
        "overview",
    }


def test_a_length_at_which_nothing_finished_is_told_under_the_bars():
    records = [record("reformer", 512), record("reformer", 1024, Outcome.TIMEOUT)]
    words = words_of(figure_of(records))
    assert "512 tokens" in words
    assert "reformer at 1K tokens: time limit." in words
