"""Tolerances: the most specific rule wins, field by field, and wrong ones are named."""

from __future__ import annotations

import pytest

from reformer_bench.schema.errors import InputError
from reformer_bench.schema.tolerances import (
    DEFAULTS,
    Metric,
    Tolerance,
    Tolerances,
    load_tolerances,
)
from reformer_bench.schema.units import MIB
from tests.builders import case


def tolerances(tmp_path, text: str) -> Tolerances:
    path = tmp_path / "tolerances.toml"
    path.write_text(text)
    return load_tolerances(path)


def test_without_rules_exact_bytes_may_grow_by_half_a_percent_and_time_is_not_gated():
    found = Tolerances()
    for metric in (Metric.PREDICTED, Metric.ALLOCATED):
        assert found.of(case(), metric) == Tolerance(0.005)
    assert not found.of(case(), Metric.TIME).gate
    assert all(DEFAULTS[metric].gate for metric in Metric if metric is not Metric.TIME)


def test_the_most_specific_rule_wins_whatever_the_order(tmp_path):
    measured = case("reformer")
    found = tolerances(
        tmp_path,
        f"""
        [[tolerance]]
        case = "{measured.id}"
        metric = "allocated"
        tolerance = "4%"
        [[tolerance]]
        variant = "reformer"
        tolerance = "3%"
        [[tolerance]]
        suite = "tiny"
        tolerance = "2%"
        [[tolerance]]
        metric = "allocated"
        tolerance = "1%"
        """,
    )
    assert found.of(measured, Metric.ALLOCATED).share == 0.04
    assert found.of(measured, Metric.PREDICTED).share == 0.03
    assert found.of(case("transformer"), Metric.ALLOCATED).share == 0.02
    other = case("transformer").model_copy(update={"suite": "other"})
    assert found.of(other, Metric.ALLOCATED).share == 0.01
    assert found.of(other, Metric.PREDICTED).share == 0.005


def test_a_rule_leaves_alone_what_it_does_not_name(tmp_path):
    found = tolerances(
        tmp_path,
        """
        [[tolerance]]
        metric = "time"
        gate = true
        [[tolerance]]
        metric = "resident"
        at_least = "1 MiB"
        """,
    )
    assert found.of(case(), Metric.TIME) == Tolerance(0.25, gate=True)
    assert found.of(case(), Metric.RESIDENT) == Tolerance(0.10, MIB)


def test_the_command_line_wins_over_the_file(tmp_path):
    found = tolerances(
        tmp_path, '[[tolerance]]\nvariant = "reformer"\nmetric = "allocated"\ntolerance = "9%"'
    ).with_options(["allocated=1%", "transformer:time=30%", "resident=off"])
    assert found.of(case("reformer"), Metric.ALLOCATED).share == 0.01
    assert found.of(case("transformer"), Metric.TIME) == Tolerance(0.30, gate=True)
    assert not found.of(case("reformer"), Metric.TIME).gate
    assert not found.of(case(), Metric.RESIDENT).gate


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [(1000, 1005, True), (1000, 1006, False), (1000, 10, True), (0, 0, True), (0, 1, False)],
)
def test_growth_up_to_the_share_passes_to_the_byte(old, new, allowed):
    assert Tolerance(0.005).allows(old, new) is allowed


def test_growth_of_few_bytes_passes_whatever_its_share():
    assert Tolerance(0.0, at_least_bytes=100).allows(1, 101)
    assert not Tolerance(0.0, at_least_bytes=100).allows(1, 102)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[tolerance]]\nmetrc = 'time'\ntolerance = '1%'", "unknown key"),
        ("[[tolerance]]\nmetric = 'speed'\ntolerance = '1%'", "metric = 'speed'"),
        ("[[tolerance]]\nmetric = 'time'\ntolerance = 'much'", "write a percentage"),
        ("[[tolerance]]\nmetric = 'time'", "needs one of"),
        ("override = []", "unknown key 'override'"),
        ("[[tolerance]", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, said):
    with pytest.raises(InputError, match=r"tolerances\.toml") as caught:
        tolerances(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["allocated", "=1%", "speed=1%", "allocated=much"])
def test_a_wrong_option_is_named(text):
    with pytest.raises(InputError, match="--tolerance"):
        Tolerances().with_options([text])
