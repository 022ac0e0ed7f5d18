import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from reformer_bench.analysis.groups import group_records
from reformer_bench.report.curves import Quantity, curves
from reformer_bench.report.plots import overview_figure, single_figure, write_plots
from reformer_bench.report.style import drawing, looks
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import GIB, MIB
from tests.report.builders import record, sweep

SMALL = [record(v, n, peak=n * 10**5) for v in ("reformer", "transformer") for n in (512, 1024)]


def single(records: list[Record], quantity: Quantity) -> Figure:
    (group,) = group_records(records)
    with drawing():
        return single_figure(group, quantity, curves(group, quantity), looks(group.variants))


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("predictions", [False, True])
@pytest.mark.parametrize("quantity", ["memory", "throughput"])
def test_no_text_overlaps_or_leaves_the_figure(
    device: str, predictions: bool, quantity: Quantity
) -> None:
    figure = whole(device, predictions, quantity)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= width, name
        assert box.y1 <= height, name
    for (name, one), (other_name, other) in itertools.combinations(boxes, 2):
        assert not one.padded(-2).overlaps(other.padded(-2)), (name, other_name)


def test_ticks_are_binary_lengths_and_bytes() -> None:
    x, y = tick_labels(whole("cuda", False, "memory"))
    assert x == ["1K", "4K", "16K", "64K", "256K", "1M"]
    assert y == ["256 MiB", "1 GiB", "4 GiB", "16 GiB", "64 GiB", "256 GiB"]


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
    assert {"out of memory", "time limit", "predicted", "not measured, direction only"} <= names
    assert not {"failed", "interquartile range"} & names
    assert not {"out of memory", "predicted"} & {
        t.get_text() for t in texts(single(SMALL, "memory"))
    }


def test_out_of_memory_and_over_budget_share_a_sign_and_its_key() -> None:
    records = [
        *SMALL,
        record("transformer", 2048, Outcome.DEVICE_OOM),
        record("reformer", 2048, Outcome.OVER_BUDGET, predicted=300 * MIB),
    ]
    names = {text.get_text() for text in texts(single(records, "memory"))}
    assert "out of memory or over budget" in names


def test_figures_say_what_where_on_which_model_and_when() -> None:
    text = " ".join(t.get_text().replace("\n", " ") for t in texts(single(SMALL, "memory")))
    for words in ("Peak memory, training step", "Xeon", "batch 1", "d_model 256", "2026-01-15"):
        assert words in text
    assert "PyTorch 2.13.0" in text


def test_many_variants_are_named_in_a_legend() -> None:
    records = [record(f"model-{i}", n, peak=n * 10**5) for i in range(12) for n in (512, 1024)]
    figure = single(records, "memory")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        f"model-{i}" for i in range(12)
    ]


def test_a_variant_has_one_look_everywhere() -> None:
    both = looks(["reformer", "mine", "transformer"])
    assert looks(["reformer"])["reformer"] == both["reformer"]
    assert len({(look.colour, look.marker) for look in looks(map(str, range(40))).values()}) == 40


def test_panels_of_an_overview_share_their_lengths() -> None:
    (group,) = group_records(sweep())
    shown: dict[Quantity, object] = {q: curves(group, q) for q in ("memory", "throughput")}
    with drawing():
        figure = overview_figure(group, shown, looks(group.variants))  # type: ignore[arg-type]
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()


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
