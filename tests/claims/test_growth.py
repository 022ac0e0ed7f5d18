"""The lines on growth below a run's summary."""

import pytest

from reformer_bench.claims.growth import growth_lines
from reformer_bench.schema.record import AllocatorMemory, Breakdown, Memory, PhasePeak, Record
from tests.builders import case, record_of


def records(lengths, power: float, variant: str = "one", **changes) -> list[Record]:
    """Records whose memory beside the parameters grows with a power of the length."""
    found = []
    for length in lengths:
        kept = int(length**power)
        parts = Breakdown(
            parameters_bytes=100,
            gradients_bytes=0,
            optimizer_bytes=0,
            activations_bytes=kept,
            temporaries_bytes=0,
        )
        peak = PhasePeak(phase="forward", allocated_bytes=kept + 100)
        memory = AllocatorMemory(
            source="cpu-allocator-events", cold=(peak,), breakdown=parts, breakdown_phase="forward"
        )
        one = case(length=length, **changes).model_copy(update={"variant": variant})
        record = record_of(one)
        update = {"memory": Memory(allocator=memory), "timing": None, "case": one}
        found.append(record.model_copy(update=update | {"case_id": one.id}))
    return found


LENGTHS = (512, 1024, 2048, 4096)


def test_each_variant_has_its_exponent():
    (line,) = growth_lines(records(LENGTHS, 1.5) + records(LENGTHS, 2.0, "other"))
    assert "one memory L^1.50 (1.50 to 1.50); other memory L^2.00" in line
    assert "time" not in line


@pytest.mark.parametrize("lengths", [LENGTHS[:3], (512, 512, 1024, 2048)])
def test_there_is_no_line_for_few_lengths(lengths):
    assert growth_lines(records(lengths, 1.0)) == []


def test_there_is_no_line_where_the_batch_goes_with_the_length():
    found = [one for n in LENGTHS for one in records([n], 1.0, batch=8192 // n)]
    assert growth_lines(found) == []
