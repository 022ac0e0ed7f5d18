"""What is said beside the paper's claims, and that nothing is said of what wasn't measured."""

from reformer_bench.claims.remarks import remarks
from tests.report.builders import record

LENGTHS = (1024, 2048, 4096, 8192)


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
