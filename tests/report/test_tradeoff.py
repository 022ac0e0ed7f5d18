"""A sweep at one length is drawn as time against memory, and its frontier is named."""

from matplotlib.text import Text

from reformer_bench.analysis.groups import group_records
from reformer_bench.report.plots import write_plots
from reformer_bench.report.style import drawing
from reformer_bench.report.tradeoff import spots, tradeoff_figure
from reformer_bench.spec.record import Outcome, Record
from reformer_bench.spec.units import MIB
from tests.report.builders import record


def at_one_length(n: int = 4, n_poor: int = 1) -> list[Record]:
    """Slower and leaner by turns, and some that are both slower and larger than another."""
    good = [record(f"good-{i}", 4096, peak=2**i * 100 * MIB, samples_ms=[1000 / 2**i])
            for i in range(n - 1)]  # fmt: skip
    poor = [record(f"poor-{i}", 4096, peak=(900 + i) * MIB, samples_ms=[2000.0 + 200 * i])
            for i in range(n_poor)]  # fmt: skip
    return [*good, *poor]


def test_one_length_is_drawn_as_a_tradeoff_and_nothing_else(tmp_path):
    written = write_plots(at_one_length(), tmp_path, formats=("svg",))
    assert [path.name for path in written] == ["train_step-tradeoff.svg"]


def test_two_variants_or_two_lengths_are_drawn_against_length(tmp_path):
    for records in (at_one_length(2), [*at_one_length(), record("good-0", 8192)]):
        written = write_plots(records, tmp_path, formats=("svg",))
        assert "overview.svg" in [path.name for path in written]


def words(records: list[Record]) -> set[str]:
    (group,) = group_records(records)
    with drawing():
        figure = tradeoff_figure(group, spots(group))
    return {text.get_text() for text in figure.findobj(Text)}


def test_a_few_points_are_all_named():
    assert {"good-0", "good-1", "good-2", "poor-0"} <= words(at_one_length())


def test_of_many_points_only_the_frontier_is_named():
    found = words(at_one_length(n_poor=16))
    assert {"good-0", "good-1", "good-2"} <= found
    assert not any(word.startswith("poor") for word in found)


def test_models_of_different_sizes_have_no_frontier():
    deeper = record("deeper", 4096, model={"n_layers": 9})
    assert any(word.startswith("frontier") for word in words(at_one_length()))
    assert not any(word.startswith("frontier") for word in words([*at_one_length(), deeper]))


def test_only_what_was_measured_to_its_end_is_a_spot():
    out_of_time = record("slow", 4096, Outcome.TIMEOUT, peak=None, predicted=MIB)
    (group,) = group_records([*at_one_length(), out_of_time])
    assert "slow" not in {spot.variant for spot in spots(group)}
