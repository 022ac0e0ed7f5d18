"""Makes an explanation of a peak from a timeline and the origins of what is alive there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from reformer_bench.measure.fake.origins import NOWHERE, ExplainedLedger, Origin, parts_of
from reformer_bench.measure.timeline import COLD, WARM, Peak, Timeline, known_phase
from reformer_bench.schema.explanation import Explanation, Holder, Kind


def explanation_of(timeline: Timeline, ledger: ExplainedLedger) -> Explanation:
    """Explain the highest peak of the steps, the later step's where both are as high.

    ValueError is raised where no phase was entered.
    """
    peaks = [(timeline.peak_of_step(step), step) for step in (COLD, WARM)]
    found = [(peak, step) for peak, step in peaks if peak is not None]
    if not found:
        raise ValueError("expected a step with phases, there was none")
    peak, step = max(found, key=lambda one: (one[0].allocated_bytes, one[1]))
    assert peak.phase is not None
    alive = list(_alive_at(timeline, ledger, peak))
    # The last that was born needed the last bytes; a step may have no memory at all.
    last = alive[-1][0] if alive else Origin("nothing", NOWHERE)
    return Explanation(
        peak_bytes=peak.allocated_bytes,
        step="warm" if step == WARM else "cold",
        phase=known_phase(peak.phase),
        holders=tuple(_grouped(alive)),
        **_code(last),
    )


def _alive_at(
    timeline: Timeline, ledger: ExplainedLedger, peak: Peak
) -> Iterator[tuple[Origin, int, Kind, str]]:
    """Yield what is alive at a peak, in the order in which it was born: origin, bytes, kind, and a
    dotted name where it has one.
    """
    for number, size, kind in timeline.alive_at(peak):
        for origin, part in parts_of(ledger.origins[number], size):
            yield origin, part, cast(Kind, kind), ledger.names.get(number, "")


def _grouped(alive: list[tuple[Origin, int, Kind, str]]) -> list[Holder]:
    """Return what is alive, alike together, the largest first."""
    groups: dict[tuple[Origin, Kind, str], list[int]] = {}
    for origin, size, kind, name in alive:
        groups.setdefault((origin, kind, name), []).append(size)
    holders = [_holder(origin, kind, name, sizes) for (origin, kind, name), sizes in groups.items()]
    return sorted(holders, key=lambda holder: -holder.held_bytes)


def _holder(origin: Origin, kind: Kind, name: str, sizes: list[int]) -> Holder:
    code = _code(origin)
    if name:
        # A key of optimizer state may have dots of its own.
        owner, bracket, key = name.partition("[")
        code["module"], _, tensor = owner.rpartition(".")
        code["tensor"] = tensor + bracket + key
    return Holder(
        held_bytes=sum(sizes),
        count=len(sizes),
        kind=kind,
        shape=origin.shape,
        dtype=None if origin.dtype is None else str(origin.dtype).removeprefix("torch."),
        **code,
    )


def _code(origin: Origin) -> dict[str, Any]:
    site = origin.site
    return {
        "module": site.module,
        "operator": operator_name(origin.operator),
        "inside": origin.inside,
        "backward_of": None if site.backward_of is None else operator_name(site.backward_of),
        "recomputed": site.recomputed,
        "line": None if site.line is None else str(site.line),
        "your_line": None if site.your_line is None else str(site.your_line),
    }


def operator_name(operator: Any) -> str:
    """Return an operator's name, with its namespace where that isn't PyTorch's own."""
    packet = getattr(operator, "overloadpacket", None)
    return str(operator if packet is None else packet).removeprefix("aten.")
