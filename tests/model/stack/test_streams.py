"""Fixed-point streams undo every addition to the bit; float streams don't."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.model.stack.streams import (
    FixedStream,
    FloatStream,
    RangeWatch,
    StreamRangeError,
)

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
    stream = FixedStream.of(x)
    before = stream.tensor.clone()
    for y in ys:
        stream.add_(EVERY, y, 1)
    for y in reversed(ys):
        stream.add_(EVERY, y, -1)
    assert torch.equal(stream.tensor, before)


def test_fixed_point_stays_within_half_a_unit_of_the_sum():
    x, a, b = torch.randn(9, 4), torch.randn(9, 3), torch.randn(3, 4)
    stream = FixedStream.of(x.clone())
    stream.add_product_(EVERY, a, b, 1)
    assert (stream.values(EVERY) - (x + a @ b)).abs().max() <= 2.0**-20 + 1e-6


def test_float_streams_drift_where_fixed_ones_do_not():
    torch.manual_seed(0)
    x = torch.randn(100, 8)
    ys = [torch.randn(100, 8) for _ in range(64)]
    drift = {}
    for kind in (FixedStream.of, FloatStream):
        stream = kind(x.clone())
        start = stream.values(EVERY).clone()
        for y in ys:
            stream.add_(EVERY, y, 1)
        for y in reversed(ys):
            stream.add_(EVERY, y, -1)
        drift[kind] = float((stream.values(EVERY) - start).abs().max())
    assert drift[FixedStream.of] == 0.0
    assert 0.0 < drift[FloatStream] < 1e-4


def test_reading_for_a_normalisation_is_the_value_times_its_scale():
    stream = FixedStream.of(torch.randn(6, 3))
    torch.testing.assert_close(
        stream.read(EVERY) / stream.norm_scale, stream.values(EVERY), rtol=0, atol=0
    )


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)
MODERATE = st.floats(-1100, 1100, width=32)


@settings(deadline=None, max_examples=300)
@given(
    start=MODERATE,
    additions=st.lists(st.one_of(ANY_FLOAT, MODERATE), max_size=6),
    wide=st.booleans(),
)
def test_a_watched_stream_holds_the_exact_sum_or_the_watch_names_who_broke_it(
    start, additions, wide
):
    """Additions that wrap around and back again, NaN and infinities: none goes by unseen."""
    dtype = torch.float64 if wide else torch.float32
    scale, limit = (2**44, 2**62) if wide else (2**20, 2**30)
    watch = RangeWatch.over(
        [f"place {i}" for i in range(len(additions) + 1)], torch.zeros((), dtype=dtype)
    )
    stream = FixedStream.of(torch.full((3, 2), start, dtype=dtype), watch)
    watch.next_place()
    for y in additions:
        stream.add_(EVERY, torch.full((3, 2), y, dtype=dtype), 1)
        watch.next_place()

    def units(y):
        return round(y * scale) if math.isfinite(y * scale) else None

    exact, broken = 0, None
    for place, y in enumerate([start, *additions]):
        entering = units(y)
        near = entering is not None and max(abs(entering), abs(exact + entering)) > 0.999 * limit
        if entering is None or max(abs(entering), abs(exact + entering)) >= limit:
            broken = place
            break
        if near:
            return  # As floats, sums near the limit round up to it: either verdict is right.
        exact += entering
    if broken is None:
        watch.check()
        assert float(watch.guard()) == 0.0
        assert stream.tensor.eq(exact).all()
    else:
        assert math.isnan(float(watch.guard()))
        with pytest.raises(StreamRangeError, match=f"^place {broken} put "):
            watch.check()


def test_two_contributions_that_wrap_back_into_range_are_seen():
    """Twice 2³¹ units are 0 again in 32 bits: what an even number of heads did."""
    watch = RangeWatch.over(["embedding", "layers.0.attention"], torch.zeros(()))
    stream = FixedStream.of(torch.ones(4, 4), watch)
    watch.next_place()
    for _ in range(2):
        stream.add_(EVERY, torch.full((4, 4), 2048.0), 1)
    watch.next_place()
    with pytest.raises(StreamRangeError, match=r"layers\.0\.attention put a value beyond ±1024"):
        watch.check()


def test_parameters_of_float16_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="float16 allow no fixed-point streams"):
        FixedStream.of(torch.zeros(2, 2, dtype=torch.float16))
