"""Fixed-point streams undo every addition to the bit; float streams don't."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.model.streams import FixedStream, FloatStream

EVERY = slice(None)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    wide=st.booleans(),
    scale=st.sampled_from([1e-6, 1.0, 30.0]),
    additions=st.integers(1, 20),
)
def test_undoing_additions_gives_back_every_bit(seed, wide, scale, additions):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if wide else torch.float32
    x, *ys = (
        torch.randn(7, 5, generator=generator, dtype=dtype) * scale for _ in range(additions + 1)
    )
    stream = FixedStream(x)
    before = stream.tensor.clone()
    for y in ys:
        stream.add_(EVERY, y, 1)
    for y in reversed(ys):
        stream.add_(EVERY, y, -1)
    assert torch.equal(stream.tensor, before)


def test_fixed_point_stays_within_half_a_unit_of_the_sum():
    x, a, b = torch.randn(9, 4), torch.randn(9, 3), torch.randn(3, 4)
    stream = FixedStream(x.clone())
    stream.add_product_(EVERY, a, b, 1)
    assert (stream.values(EVERY) - (x + a @ b)).abs().max() <= 2.0**-20 + 1e-6


def test_float_streams_drift_where_fixed_ones_do_not():
    torch.manual_seed(0)
    x = torch.randn(100, 8)
    ys = [torch.randn(100, 8) for _ in range(64)]
    drift = {}
    for kind in (FixedStream, FloatStream):
        stream = kind(x.clone())
        start = stream.values(EVERY).clone()
        for y in ys:
            stream.add_(EVERY, y, 1)
        for y in reversed(ys):
            stream.add_(EVERY, y, -1)
        drift[kind] = float((stream.values(EVERY) - start).abs().max())
    assert drift[FixedStream] == 0.0
    assert 0.0 < drift[FloatStream] < 1e-4


def test_reading_for_a_normalisation_is_the_value_times_its_scale():
    stream = FixedStream(torch.randn(6, 3))
    torch.testing.assert_close(
        stream.read(EVERY) / stream.norm_scale, stream.values(EVERY), rtol=0, atol=0
    )


def test_largest_is_the_largest_magnitude_of_either_sign():
    x = torch.tensor([[1.0, -7.5], [3.0, 2.0]])
    assert FixedStream(x).largest().item() == 7.5
