import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from reformer_bench.report.groups import group_records
from reformer_bench.report.plots.curves import Quantity
from reformer_bench.report.plots.figures import content, curves_figure
from reformer_bench.report.plots.files import write_plots
from reformer_bench.report.plots.style import drawing, looks
from reformer_bench.report.plots.varied import pictures
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB, MIB
from tests.builders import record, sweep
from tests.report.plots.test_varied import suite_records

SMALL = [record(v, n, peak=n * 10**5) for v in ("reformer", "transformer") for n in (512, 1024)]


def drawn(records: list[Record], *quantities: Quantity) -> Figure:
    (group,) = group_records(records)
    picture = pictures(group)[0]
    with drawing():
        return curves_figure(group, content(picture, quantities), looks(picture.labels))


def single(records: list[Record], quantity: Quantity) -> Figure:
    return drawn(records, quantity)


def words_of(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in texts(figure))


@functools.cache
def whole(device: str, predictions: bool, quantity: Quantity) -> Figure:
    """The figure of a whole sweep, drawn once for all tests that look at it."""
    return single(sweep(device, predictions=predictions), quantity)


def tick_labels(figure: Figure) -> tuple[list[str], list[str]]:
    (ax,) = figure.axes
    figure.canvas.draw()
    shown = []
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        ticks = [t for t in axis.get_major_ticks() if limits[0] <= t.get_loc() <= limits[1]]
        shown.append([tick.label1.get_text() for tick in ticks])
    return shown[0], shown[1]


def texts(figure: Figure) -> Iterator[Text]:
    """All text that is drawn: titles, notes, legends, tick labels, names."""
    figure.canvas.draw()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and not _off_axis(text, figure.axes):
            yield text


def _off_axis(text: Text, every: list[Axes]) -> bool:
    """Tick labels outside of the view are never drawn."""
    for ax in every:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if text in (tick.label1, tick.label2):
                    return not (limits[0] <= tick.get_loc() <= limits[1]) or text is tick.label2
    return False


def assert_tidy(figure: Figure) -> None:
    """No text overlaps another or leaves the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= width, name
        assert box.y1 <= height, name
    for (name, one), (other_name, other) in itertools.combinations(boxes, 2):
        assert not one.padded(-2).overlaps(other.padded(-2)), (name, other_name)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("predictions", [False, True])
@pytest.mark.parametrize("quantity", ["memory", "throughput"])
def test_no_text_overlaps_or_leaves_the_figure(
    device: str, predictions: bool, quantity: Quantity
) -> None:
    assert_tidy(whole(device, predictions, quantity))


@pytest.mark.parametrize(
    "suite",
    [
        "table-3",
        "depth-scaling",
        "fixed-tokens",
        "param-offload",
        "hash-rounds",
        "attention-scaling",
    ],
)
def test_no_text_of_an_overview_overlaps_or_leaves_the_figure(suite: str) -> None:
    assert_tidy(drawn(suite_records(suite), "memory", "activations", "throughput"))


def test_ticks_are_binary_lengths_and_bytes() -> None:
    x, y = tick_labels(whole("cuda", False, "memory"))
    assert x == ["1K", "4K", "16K", "64K", "256K", "1M"]
    assert y == ["256 MiB", "1 GiB", "4 GiB", "16 GiB", "64 GiB"]


def test_throughput_ticks_are_decimal() -> None:
    _, y = tick_labels(whole("cuda", False, "throughput"))
    assert y == ["50k", "100k", "200k", "500k"]


def test_budgets_in_range_are_named() -> None:
    names = {text.get_text() for text in texts(whole("cuda", False, "memory"))}
    assert {"16 GiB card", "24 GiB card", "40 GiB card", "80 GiB card"} <= names
    small = {text.get_text() for text in texts(single(SMALL, "memory"))}
    assert not any(name.endswith("card") for name in small)


def test_the_key_explains_the_signs_that_occur_and_no_others() -> None:
    records = [
        *SMALL,
        record("transformer", 2048, Outcome.DEVICE_OOM),
        record("reformer", 2048, Outcome.TIMEOUT, predicted=300 * MIB),
    ]
    names = {text.get_text() for text in texts(single(records, "memory"))}
    assert {"stopped: out of memory", "stopped: time limit", "predicted"} <= names
    assert not {"stopped: failed", "interquartile range"} & names
    assert not {"stopped: out of memory", "predicted"} & {
        t.get_text() for t in texts(single(SMALL, "memory"))
    }


def test_out_of_memory_and_over_budget_share_a_sign_and_its_key() -> None:
    records = [
        *SMALL,
        record("transformer", 2048, Outcome.DEVICE_OOM),
        record("reformer", 2048, Outcome.OVER_BUDGET, predicted=300 * MIB),
    ]
    names = {text.get_text() for text in texts(single(records, "memory"))}
    assert "stopped: out of memory or over budget" in names


def markers(figure: Figure) -> list[tuple[str, float, float]]:
    """Every marker inside the panels: its shape and where it is, in data units."""
    return [
        (str(line.get_marker()), *map(float, (line.get_xdata()[0], line.get_ydata()[0])))
        for ax in figure.axes
        for line in ax.get_lines()
        if line.get_marker() != "None"
    ]


def test_every_marker_is_at_a_figure() -> None:
    records = [
        *SMALL,
        record("transformer", 2048, Outcome.DEVICE_OOM),
        record("never", 512, Outcome.DEVICE_OOM),
        record("far", 512, peak=10**8),
        record("far", 1024, Outcome.OVER_BUDGET, predicted=10**6 * GIB),
    ]
    known = {r.memory.peak_bytes for r in records}
    heights = {height for _, _, height in markers(single(records, "memory"))}
    assert heights <= known


def test_a_stop_without_a_figure_stands_beside_the_last_point() -> None:
    records = [*SMALL, record("transformer", 2048, Outcome.DEVICE_OOM)]
    (sign,) = [mark for mark in markers(single(records, "memory")) if mark[0] == "x"]
    assert sign == ("x", 1024, 1024 * 10**5)


def test_what_never_finished_is_said_and_not_drawn() -> None:
    records = [*SMALL, record("never", 512, Outcome.TIMEOUT)]
    figure = single(records, "memory")
    assert "never: no peak memory (time limit at 512 tokens)." in words_of(figure)
    assert {mark[0] for mark in markers(figure)} == {"o", "*"}


def test_a_curve_under_another_is_named_and_wider() -> None:
    names = ("transformer", "reformer")
    records = [record(v, n, peak=n * 10**5) for v in names for n in (512, 1024)]
    figure = single(records, "memory")
    assert "Peak memory of reformer is the same as that of transformer." in words_of(figure)
    lines = [line for line in figure.axes[0].get_lines() if list(line.get_xdata()) == [512, 1024]]
    under, over = lines[:2]
    assert under.get_linewidth() > over.get_linewidth()
    assert "the same as" not in words_of(drawn(sweep(variants=("reformer",)), "memory"))


def test_a_curve_that_is_far_off_altogether_is_still_shown() -> None:
    far = record("far", 1024, Outcome.TIMEOUT, predicted=40 * GIB)
    assert (">", 1024, 40 * GIB) in markers(single([*SMALL, far], "memory"))


def test_figures_say_what_where_on_which_model_and_when() -> None:
    text = words_of(single(SMALL, "memory"))
    for words in (
        "seq-scaling: peak memory against sequence length",
        "training step",
        "Xeon",
        "batch 1",
        "d_model 256",
        "2026-01-15",
        "PyTorch 2.13.0",
    ):
        assert words in text


def test_curves_of_a_single_panel_are_named_beside_it_the_highest_end_first() -> None:
    figure = single(sweep(predictions=True), "memory")
    (ax,) = figure.axes
    names = [text.get_text().replace("\n", "") for text in ax.get_legend().get_texts()]
    assert names[0] == "transformer"
    assert names[-1] == "reformer"
    assert len(names) == 6
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1
    assert (
        single([one for one in SMALL if one.case.variant == "reformer"], "memory")
        .axes[0]
        .get_legend()
        is None
    )


def test_panels_of_a_row_share_their_axes() -> None:
    figure = drawn(suite_records("table-3"), "memory", "throughput")
    assert len(figure.axes) == 8
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert len({ax.get_ylim() for ax in figure.axes[:4]}) == 1
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["2 layers", "4 layers"]


def test_a_batch_that_goes_with_the_length_stands_on_the_axis() -> None:
    x, _ = tick_labels(single(suite_records("fixed-tokens"), "memory"))
    assert x[0] == "512\n× 64"
    assert "∝" not in words_of(single(suite_records("fixed-tokens"), "throughput"))


def test_panels_of_an_overview_share_their_lengths() -> None:
    left, right = drawn(sweep(), "memory", "throughput").axes
    assert left.get_xlim() == right.get_xlim()


def test_a_part_looks_as_it_does_in_the_whole(tmp_path: Path) -> None:
    mine = [record(name, n, peak=n * 10**5) for name in "abcdefgh" for n in (512, 1024)]
    part = [one for one in mine if one.case.variant == "h"]
    (path,) = write_plots(part, tmp_path, ("svg",), "memory", among=mine)
    assert looks("abcdefgh")["h"].colour != looks("h")["h"].colour
    assert looks("abcdefgh")["h"].colour in path.read_text()


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_equal_records_give_equal_files(tmp_path: Path, file_format: str) -> None:
    first = write_plots(SMALL, tmp_path / "a", (file_format,), "memory")
    second = write_plots(SMALL, tmp_path / "b", (file_format,), "memory")
    assert [p.name for p in first] == [f"train_step-memory.{file_format}"]
    assert first[0].read_bytes() == second[0].read_bytes()


def test_the_users_settings_change_nothing_and_are_kept(tmp_path: Path) -> None:
    (plain,) = write_plots(SMALL, tmp_path / "a", ("svg",), "memory")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        (other,) = write_plots(SMALL, tmp_path / "b", ("svg",), "memory")
        assert matplotlib.rcParams["font.size"] == 30
    assert plain.read_bytes() == other.read_bytes()


def test_files_of_a_run(tmp_path: Path) -> None:
    written = write_plots(SMALL, tmp_path, ("svg",))
    assert {p.name for p in written} == {
        "train_step-memory.svg",
        "train_step-throughput.svg",
        "overview.svg",
    }
    assert all(p.stat().st_size > 1000 for p in written)


def test_several_groups_have_files_of_their_own(tmp_path: Path) -> None:
    records = [record(batch=b, workload=w) for b in (1, 4) for w in ("forward", "attention")]
    written = write_plots(records, tmp_path, ("svg",), "memory")
    assert {p.stem for p in written} == {
        f"{w}-batch{b}-memory" for b in (1, 4) for w in ("forward", "attention")
    }


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    assert write_plots([], tmp_path / "a") == []
    assert write_plots([record(outcome=Outcome.ERROR)], tmp_path / "a") == []
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "records",
    [
        [record()],
        [record(), record("transformer", outcome=Outcome.DEVICE_OOM)],
        [record(length=1), record(length=3)],
        [record(), record(length=2048, outcome=Outcome.OVER_BUDGET, predicted=10**6 * GIB)],
        [record(samples_ms=[1e7]), record(length=2**21, samples_ms=[1e-3])],
    ],
    ids=["one-case", "never-finished", "tiny-lengths", "far-prediction", "extreme-rates"],
)
@pytest.mark.parametrize("quantity", ["memory", "throughput"])
def test_odd_runs_draw(tmp_path: Path, records: list[Record], quantity: Quantity) -> None:
    assert write_plots(records, tmp_path, ("svg",), quantity)


def test_unknown_formats_and_quantities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'gif' is not one of png, svg, pdf"):
        write_plots(SMALL, tmp_path, ("gif",))
    with pytest.raises(ValueError, match="'speed' is not one of"):
        write_plots(SMALL, tmp_path, ("png",), "speed")  # type: ignore[arg-type]
