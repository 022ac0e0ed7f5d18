"""Sizes and lengths: what people write comes out as what code holds, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.schema.units import (
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_tokens,
    parse_bytes,
    parse_length,
    parse_lengths,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("16GiB", 16 * GIB),
        ("1.5 GiB", 3 * GIB // 2),
        ("512 mib", 512 * MIB),
        ("1GB", 10**9),
        ("123", 123),
        (77, 77),
    ],
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1 XB", "1e9", "16G iB"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="for example 16GiB"):
        parse_bytes(text)


@given(st.integers(1, 2**22))
def test_a_length_as_shown_reads_back(count):
    assert parse_length(format_tokens(count).replace(",", "")) == count


def test_lengths_are_sorted_and_unique():
    assert parse_lengths("4K, 512..2048,1024") == (512, 1024, 2048, 4096)
    assert parse_lengths("512..3000") == (512, 1024, 2048)
    assert parse_lengths("1M") == (2**20,)


@pytest.mark.parametrize("text", ["0", "a", "4096..512", "1..", "", "1,,2", "-5"])
def test_wrong_lengths_are_refused(text):
    with pytest.raises(ValueError, match=r"length|backwards"):
        parse_lengths(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (KIB, "1 KiB"),
        (int(216.71 * MIB), "217 MiB"),
        (1016 * MIB, "0.992 GiB"),
        (int(1.5 * GIB), "1.5 GiB"),
        (None, "–"),
    ],
)
def test_sizes_are_shown_with_three_figures(count, text):
    assert format_bytes(count) == text
