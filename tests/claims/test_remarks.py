"""What is said beside the paper's claims: crossovers of known curves, and nothing unmeasured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer_bench.claims.remarks import ahead_all_along, crossover, remarks
from tests.builders import record

LENGTHS = (1024, 2048, 4096, 8192)
SIZES = [2.0**power for power in range(9, 18)]


def _sweep(variant, time, memory):
    return [
        record(
            variant,
            peak=int(2**30 * memory(n / 1024)),
            samples_ms=[time(n / 1024)] * 2,
            length=n,
            suite="seq-scaling",
        )
        for n in LENGTHS
    ]


def test_crossovers_of_lsh_and_fused_attention():
    records = [
        *_sweep("reformer", lambda n: 30 * n, lambda n: n),
        *_sweep("flash-transformer", lambda n: 10 * n * n, lambda n: 3 * n),
    ]
    found = remarks(records)
    assert any("less time" in line and "between 2K and 4K" in line for line in found)
    assert any("less memory" in line and "at every length" in line for line in found)


def test_a_rival_that_never_wins_is_said_so():
    records = [
        *_sweep("reformer", lambda n: 50 * n, lambda n: n),
        *_sweep("flash-transformer", lambda n: 10 * n, lambda n: 3 * n),
    ]
    assert any("takes no less time" in line for line in remarks(records))


def _depth(residual, n, activations, ms, dtype="float32"):
    return record(
        f"{residual}-{n}",
        peak=2**28 + activations,
        samples_ms=[ms, ms],
        suite="depth-scaling",
        model={"residual": residual, "n_layers": n, "dtype": dtype},
    )


def test_depth_and_dtype_are_compared_by_their_own_figures():
    records = [
        _depth(residual, n, int(2**30 * growth**exponent), 100.0 * n)
        for residual, exponent in (("standard", 1), ("checkpointed", 0.5), ("reversible", 0))
        for n, growth in ((2, 1), (8, 4))
    ]
    records.append(_depth("reversible", 8, 2**29, 400.0, "bfloat16"))
    depth, narrow = remarks(records)
    # 136 MiB of each peak are neither activations nor parameters, gradients and state.
    assert depth == (
        "From 2 to 8 layers, the memory of a stack besides its parameters and gradients grows 3.65 "
        "times in a standard one (to 4.13 GiB), 1.88 times in a checkpointed one (to 2.13 GiB) and "
        "1.00 times in a reversible one (to 1.13 GiB); a step of 8 layers takes 800, 800 and 800 "
        "ms (depth-scaling)."
    )
    assert "bfloat16" in narrow
    assert "0.50 times the time" in narrow


def test_a_single_length_is_no_range():
    pair = ("reformer", 50.0), ("flash-transformer", 100.0)
    records = [record(name, 512, samples_ms=[ms, ms], suite="seq-scaling") for name, ms in pair]
    assert remarks(records)[0].endswith("at every length measured (seq-scaling, 512 tokens).")


def test_nothing_measured_nothing_said():
    assert remarks([]) == []


@given(at=st.floats(700, 100_000), power=st.floats(0.3, 2.0))
def test_power_laws_cross_where_they_cross(at, power):
    challenger = {x: x for x in SIZES}
    other = {x: x * (x / at) ** power for x in SIZES}
    found = crossover(challenger, other)
    assert found is not None
    assert found.length == pytest.approx(at, rel=1e-6)
    assert found.between[0] <= at * (1 + 1e-9)
    assert at <= found.between[1] * (1 + 1e-9)


def test_never_winning_and_winning_all_along_cross_nowhere():
    low, high = {x: x for x in SIZES}, {x: 2 * x for x in SIZES}
    assert crossover(high, low) is None
    assert crossover(low, high) is None
    assert ahead_all_along(low, high)
    assert not ahead_all_along(high, low)


def test_a_lead_that_is_lost_again_does_not_count():
    other = dict.fromkeys((1.0, 2.0, 4.0), 1.0)
    assert crossover({1.0: 2.0, 2.0: 0.5, 4.0: 2.0}, other) is None


def test_only_lengths_that_both_have_count():
    assert crossover({1.0: 2.0, 4.0: 0.5}, {2.0: 1.0}) is None
    assert not ahead_all_along({1.0: 1.0}, {2.0: 5.0})
