"""Ticks of axes are what people read."""

import pytest

from reformer_bench.report.plots.axes import rate_tick


@pytest.mark.parametrize(("value", "text"), [(500, "500"), (2e4, "20k"), (1e6, "1M"), (0.5, "0.5")])
def test_rate_ticks(value: float, text: str) -> None:
    assert rate_tick(value) == text
