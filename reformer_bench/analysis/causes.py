"""Causes: which parts of the memory at a peak grew between two records."""

from __future__ import annotations

from dataclasses import dataclass

from reformer_bench.analysis.frames import BREAKDOWN
from reformer_bench.spec.record import Memory, Phase, Record


@dataclass(frozen=True)
class Growth:
    """How a kind of memory at the peak changed, in the whole model or in one part of it."""

    kind: str
    """One of parameters, gradients, optimizer, activations and temporaries."""
    old_bytes: int
    new_bytes: int
    place: str | None = None
    """The part of the model (``layers.3.feed_forward``). None stands for the whole model."""

    @property
    def bytes(self) -> int:
        """How much it grew."""
        return self.new_bytes - self.old_bytes


def growths(old: Record, new: Record) -> tuple[Growth, ...]:
    """Return the kinds of memory that grew at the peak, largest growth first; none without
    breakdowns.
    """
    before, now = (_breakdown(record.memory) for record in (old, new))
    if before is None or now is None:
        return ()
    return _grown([Growth(kind, before[kind], now[kind]) for kind in BREAKDOWN])


def place_growths(old: Record, new: Record) -> tuple[Growth, ...]:
    """Return the same for each part of the model, where both records tell the parts of the
    predicted peak.
    """
    before, now = old.memory.predicted_places, new.memory.predicted_places
    if before is None or now is None:
        return ()
    keys = dict.fromkeys(
        (place, kind) for places in (before, now) for place in places for kind in places[place]
    )
    return _grown(
        [
            Growth(kind, before.get(place, {}).get(kind, 0), now.get(place, {}).get(kind, 0), place)
            for place, kind in keys
        ]
    )


def peak_phase(record: Record) -> Phase | None:
    """Return the phase in which the breakdown was taken."""
    allocator = record.memory.allocator
    return None if allocator is None else allocator.breakdown_phase


def _grown(found: list[Growth]) -> tuple[Growth, ...]:
    return tuple(sorted((g for g in found if g.bytes > 0), key=lambda g: -g.bytes))


def _breakdown(memory: Memory) -> dict[str, int] | None:
    if memory.allocator is None or memory.allocator.breakdown is None:
        return None
    breakdown = memory.allocator.breakdown
    return {kind: getattr(breakdown, f"{kind}_bytes") for kind in BREAKDOWN}
