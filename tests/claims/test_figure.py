"""The figure of claims shows what was fitted, as it was fitted, and no more."""

import math

import pytest

from reformer_bench.claims.figure import claims_figure, looks_of, panels, write_claims_figure
from reformer_bench.claims.judge import Judgement
from reformer_bench.claims.paper import CLAIMS, judge_claims
from reformer_bench.report.plots.style import NAMED, drawing
from tests.claims.paper_data import REFUTING, SUPPORTING
from tests.report.plots.test_files import assert_tidy


def judgements(name: str) -> list[Judgement]:
    return judge_claims(SUPPORTING[name])


def test_there_is_a_panel_for_each_claim_and_axis():
    found = panels(judgements("table-3"))
    assert [panel.axis for panel in found] == ["tokens", "layers", "d_ff"]
    assert [len(panel.findings) for panel in found] == [5, 5, 5]
    assert len(panels(judge_claims([r for one in SUPPORTING.values() for r in one]))) >= 9


def test_claims_without_a_fit_have_no_panel_and_no_file(tmp_path):
    assert panels(judge_claims([])) == []
    assert not write_claims_figure(judge_claims([]), "here", tmp_path / "claims.png")
    assert not (tmp_path / "claims.png").exists()


@pytest.mark.parametrize("case", ["depth-free", "flat-speed", "more-hashes"])
def test_lines_have_the_slope_that_was_fitted_and_start_at_the_smallest(case):
    (panel,) = panels(judgements(case))
    with drawing():
        (ax,) = claims_figure([panel], "here").axes
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    slopes = [
        math.log(y1 / y0) / math.log(x1 / x0)
        for (x0, x1), (y0, y1) in (line.get_data() for line in lines)
    ]
    assert slopes == pytest.approx(
        [finding.evidence.figure for finding in panel.findings], abs=1e-9
    )
    firsts = {line.get_ydata()[0] for line in ax.get_lines() if len(line.get_xdata()) == 1}
    assert 1.0 in firsts


def test_the_verdict_and_each_figure_with_its_bounds_are_written():
    _, records = REFUTING["chunks that save nothing"]
    (panel,) = panels(judge_claims(records))
    with drawing():
        (ax,) = claims_figure([panel], "here").axes
    assert [text.get_text() for text in ax.texts] == [panel.title, "refuted"]
    legend = ax.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert words[0].startswith("memory with chunks\n1.00")
    assert words[0].endswith("expected ≤ 0.25, refuted")
    assert words[1].endswith("expected 0.75 to 1.25")


def test_equal_records_give_equal_files(tmp_path):
    for name in ("a.svg", "b.svg"):
        assert write_claims_figure(judgements("depth-free"), "here", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def whole_figure():
    found = panels(judge_claims([r for one in SUPPORTING.values() for r in one]))
    with drawing():
        return claims_figure(found, "here")


def test_no_text_leaves_the_figure_and_none_overlaps():
    assert_tidy(whole_figure())


def test_panels_fill_the_width():
    figure = whole_figure()
    covered = sum(ax.get_position().width for ax in figure.axes[:3])
    assert covered > 0.7


def test_curves_that_lie_on_one_another_say_so():
    (_, in_layers, _) = panels(judgements("table-3"))
    with drawing():
        (ax,) = claims_figure([in_layers], "here").axes
    words = [text.get_text().partition("\n")[0] for text in ax.get_legend().get_texts()]
    assert "chunked reversible, the same as reversible" in words


def test_claims_are_drawn_like_the_models_they_are_about():
    expected = {one.text: one for claim in CLAIMS for one in claim.expectations}
    models = ("transformer, memory in length", "chunked reversible, memory in length")
    looks = looks_of([expected[text] for text in models])
    assert looks == [NAMED["transformer"], NAMED["chunked-reversible-transformer"]]
    memory, time = looks_of(
        [expected["memory of LSH attention"], expected["time of LSH attention"]]
    )
    assert memory == NAMED["lsh"]
    assert time != NAMED["lsh"]


def test_every_claim_about_growth_has_a_title_in_words():
    growing = [c for c in CLAIMS if any(e.bounds.unit == "exponent" for e in c.expectations)]
    assert all(claim.title for claim in growing)
    assert not {claim.title for claim in growing} & {claim.id for claim in CLAIMS}
