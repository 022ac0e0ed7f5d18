"""The picture follows from what the records vary, and labels say it in words."""

from typing import Any

import pytest

from reformer_bench.report.groups import Group, group_records
from reformer_bench.report.plots.files import write_plots
from reformer_bench.report.plots.varied import (
    MOST_CURVES,
    MOST_FACETS,
    all_series,
    axes_of,
    pictures,
)
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.suite import find_suite
from tests.builders import record


def suite_records(name: str, kind: str = "cpu") -> list[Record]:
    """A record of each case of a suite, all of which ended."""
    from reformer_bench.run.expand import expand

    cases = expand(find_suite(name), kind)
    plain = record()
    return [
        plain.model_copy(update={"case_id": f"{number}", "case": case})
        for number, case in enumerate(cases)
    ]


def group_of(records: list[Record]) -> Group:
    (group,) = group_records(records)
    return group


@pytest.mark.parametrize(
    ("suite", "axes"),
    [
        ("seq-scaling", ["length"]),
        ("attention-scaling", ["length"]),
        ("fixed-tokens", ["length"]),
        ("peers", ["length"]),
        ("table-3", ["length", "layers"]),
        ("table-3-width", ["d_ff"]),
        ("depth-scaling", ["layers"]),
        ("deep-64k", ["layers"]),
        ("param-offload", ["layers"]),
        ("ff-chunks", ["d_ff"]),
        ("hash-rounds", ["rounds"]),
        ("ablation", []),
        ("million", []),
    ],
)
def test_each_suite_is_drawn_against_what_it_is_for(suite: str, axes: list[str]) -> None:
    assert [axis.name for axis in axes_of(group_of(suite_records(suite)))] == axes


@pytest.mark.parametrize(
    ("suite", "files"),
    [
        ("ablation", {"train_step-tradeoff"}),
        ("million", {"train_step-memory", "train_step-throughput", "overview"}),
        (
            "hash-rounds",
            {"attention-memory-by-rounds", "attention-throughput-by-rounds", "overview-by-rounds"},
        ),
    ],
)
def test_files_are_named_for_what_they_show(tmp_path, suite: str, files: set[str]) -> None:
    written = write_plots(suite_records(suite), tmp_path, ("svg",))
    assert {path.stem for path in written} == files


def labels(suite: str) -> list[str]:
    group = group_of(suite_records(suite))
    axes = axes_of(group)
    found = pictures(group)[0].labels if axes else {s.name: s.label for s in all_series(group, [])}
    return list(found.values())


def test_models_of_table_3_keep_their_names_whatever_varies_beside_them() -> None:
    five = [
        "transformer",
        "reversible-transformer",
        "chunked-reversible-transformer",
        "lsh-transformer",
        "reformer",
    ]
    assert labels("table-3") == labels("table-3-width") == five


def test_labels_are_words() -> None:
    assert labels("depth-scaling") == [
        "standard residual",
        "checkpointed",
        "reversible",
        "reversible, bfloat16",
    ]
    assert labels("ff-chunks") == ["in one piece", "in 64 chunks"]
    assert labels("deep-64k") == ["d_model 64, 1 hash", "d_model 1024, 2 hashes"]
    assert labels("param-offload") == ["resident parameters", "swapped parameters"]
    assert labels("fixed-tokens")[:2] == ["memory-efficient attention", "LSH attention, 1 hash"]
    assert labels("ablation")[-1] == "LSH attention, reversible, in 16 chunks"


def test_where_everything_differs_the_variants_names_are_the_labels(tmp_path) -> None:
    """Words about twenty switches would leave no room for a single bar."""
    records = suite_records("ci")
    found = [one.label for one in all_series(group_of(records), [])]
    assert "local" in found
    assert max(map(len, found)) <= 44
    assert {path.name for path in write_plots(records, tmp_path, ("svg",))}


def test_names_that_a_user_chose_are_kept() -> None:
    mine = [record(name, n, model={"n_hashes": h}) for n in (512, 1024)
            for name, h in (("two-hashes", 2), ("eight-hashes", 8))]  # fmt: skip
    assert [one.label for one in all_series(group_of(mine), [])] == ["two-hashes", "eight-hashes"]


def layered(n_lengths: int = 2, **case: Any) -> list[Record]:
    return [
        record(f"{name}-{layers}", 2**power, model={"n_layers": layers, "residual": name}, **case)
        for power in range(9, 9 + n_lengths)
        for name in ("standard", "reversible")
        for layers in (2, 4, 8)
    ]


def test_sizes_that_are_not_drawn_against_get_a_panel_each() -> None:
    (by_layers,) = pictures(group_of(layered(2)))
    assert [facet.title for facet in by_layers.facets] == ["512 tokens", "1K tokens"]
    by_length, by_layers = pictures(group_of(layered(3)))
    assert [facet.title for facet in by_length.facets] == ["2 layers", "4 layers", "8 layers"]
    assert all(len(facet.series) == 2 for facet in (*by_length.facets, *by_layers.facets))


def test_of_many_sizes_some_are_shown_and_the_note_says_so() -> None:
    _, by_layers = pictures(group_of(layered(9)))
    titles = [facet.title for facet in by_layers.facets]
    assert len(titles) == MOST_FACETS
    assert (titles[0], titles[-1]) == ("512 tokens", "128K tokens")
    assert by_layers.note.endswith("of 9 that there are.")


@pytest.mark.parametrize("n", [9, 20, 33])
def test_no_panel_has_more_curves_than_a_reader_tells_apart(n: int) -> None:
    many = [record(f"model-{i}", length) for i in range(n) for length in (512, 1024)]
    (picture,) = pictures(group_of(many))
    assert max(len(facet.series) for facet in picture.facets) <= MOST_CURVES
    assert sum(len(facet.series) for facet in picture.facets) == n


def test_many_curves_are_split_by_a_switch_where_that_is_enough() -> None:
    many = [
        record(f"{kind}-{i}", length, model={"attention": kind})
        for kind in ("full", "lsh")
        for i in range(6)
        for length in (512, 1024)
    ]
    (picture,) = pictures(group_of(many))
    assert [facet.title for facet in picture.facets] == ["attention full", "attention lsh"]


def test_lengths_without_a_figure_are_no_axis() -> None:
    records = [record("reformer", 512), record("reformer", 1024, Outcome.TIMEOUT)]
    assert axes_of(group_of(records)) == []
