"""Up to which length the predictions of a model are confirmed, in words and as a number."""

import pytest

from reformer_bench.run.comparison import Comparison
from reformer_bench.run.confirm import NotCompared, confirmed, doublings, sentence
from reformer_bench.schema.record import AllocatorMemory, PhasePeak
from tests.builders import case


def memory(size: int) -> AllocatorMemory:
    peak = PhasePeak(phase="forward", allocated_bytes=size)
    return AllocatorMemory(source="fake-tensor", cold=(peak,))


def compared(length: int, predicted: int, measured: int = 1000) -> Comparison:
    return Comparison(case(length=length), memory(predicted), memory(measured))


@pytest.mark.parametrize(
    ("peaks", "bound", "length"),
    [
        ((1000, 1000, 1000), 0.0, 128),
        ((1000, 1001, 1000), 0.0, 32),
        ((1000, 1010, 1011), 0.01, 64),
        ((999, 1000, 1000), 0.0, None),
    ],
)
def test_the_longest_below_which_all_are_within_the_bound(peaks, bound, length):
    found = [compared(32 << n, peak) for n, peak in enumerate(peaks)]
    assert confirmed(found, bound) == length
    assert confirmed(found[::-1], bound) == length


def test_the_sentence_names_what_is_equal_and_what_is_off():
    found = [compared(32, 1000), compared(64, 1000), compared(128, 990), compared(256, 1020)]
    assert sentence(found) == (
        "equal to the byte at 32, 64 tokens, 1.00% below what was measured at 128 tokens, "
        "2.00% above what was measured at 256 tokens; the prediction is confirmed up to 64."
    )


def test_nothing_measured_confirms_nothing():
    found = [NotCompared(case(length=32), "too large")]
    assert confirmed(found) is None
    assert sentence(found).startswith("nothing was measured")


def test_doublings_end():
    assert list(doublings())[:3] == [64, 128, 256]
    assert list(doublings())[-1] == 2**24
