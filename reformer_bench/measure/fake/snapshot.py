"""Writes a recording as a memory snapshot, the format of PyTorch's memory viewer.

The format is that of ``torch.cuda.memory._snapshot`` (torch/cuda/memory.py), as it is read by
torch/cuda/_memory_viz.py and torch/utils/viz/MemoryViz.js. Addresses are made up: each allocation
lies in the first gap that is large enough.
"""

from __future__ import annotations

from bisect import bisect
from typing import Any

from reformer_bench.measure.fake.explain import operator_name
from reformer_bench.measure.fake.origins import ExplainedLedger, Origin, parts_of
from reformer_bench.measure.timeline import Timeline

_FIRST_ADDRESS = 0x7000_0000_0000
_STREAM = 0
_POOL = (0, 0)

Frame = dict[str, Any]
Block = tuple[int, int, list[Frame]]
"""Address, bytes, and frames."""


def snapshot_of(timeline: Timeline, ledger: ExplainedLedger) -> dict[str, Any]:
    """Return a recording's events as a memory snapshot.

    What an operator holds inside, and what work held that was followed once, is allocated and
    released at its place. A frame above those of the code says which operator it was, and one
    below them in which module.
    """
    space, kinds = AddressSpace(), timeline.kinds_by_birth()
    blocks: dict[int, list[Block]] = {}
    trace: list[dict[str, Any]] = []
    events = zip(timeline.address.tolist(), timeline.delta_bytes.tolist(), strict=True)
    for event, (number, delta) in enumerate(events):
        if delta > 0:
            kind, name = kinds[event], ledger.names.get(number, "")
            blocks[number] = [
                (space.take(size), size, _frames(origin, kind, name))
                for origin, size in parts_of(ledger.origins[number], delta)
            ]
            trace += [_event("alloc", block, category=kind) for block in blocks[number]]
            continue
        for block in reversed(blocks.pop(number)):
            space.give_back(*block[:2])
            trace += [_event(action, block) for action in ("free_requested", "free_completed")]
    alive = sorted(block for held in blocks.values() for block in held)
    return {
        "segments": [_segment(space.size, alive)] if space.size else [],
        "device_traces": [[*trace, _MARK]],
        "allocator_settings": {},
        "external_annotations": [],
    }


# The viewer stops with an error where there are categories and none of them is "unknown".
_MARK = {
    "action": "snapshot",
    "addr": 0,
    "size": 0,
    "stream": _STREAM,
    "frames": [{"filename": "predicted by reformer-bench", "line": 0, "name": "not measured"}],
    "category": "unknown",
}


def _event(action: str, block: Block, **more: Any) -> dict[str, Any]:
    address, size, frames = block
    return {
        "action": action,
        "addr": address,
        "size": size,
        "stream": _STREAM,
        "pool_id": _POOL,
        "frames": frames,
        **more,
    }


def _segment(size: int, alive: list[Block]) -> dict[str, Any]:
    """Return the one segment that holds everything, with what is alive at the end."""
    taken = sum(block[1] for block in alive)
    blocks: list[dict[str, Any]] = []
    at = _FIRST_ADDRESS
    for address, n_bytes, frames in alive:
        if at < address:
            blocks.append(_gap(at, address - at))
        blocks.append(
            {
                "address": address,
                "size": n_bytes,
                "requested_size": n_bytes,
                "state": "active_allocated",
                "frames": frames,
            }
        )
        at = address + n_bytes
    if at < _FIRST_ADDRESS + size:
        blocks.append(_gap(at, _FIRST_ADDRESS + size - at))
    return {
        "device": 0,
        "address": _FIRST_ADDRESS,
        "total_size": size,
        "allocated_size": taken,
        "active_size": taken,
        "requested_size": taken,
        "stream": _STREAM,
        "segment_type": "large",
        "segment_pool_id": _POOL,
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
    }


def _gap(address: int, size: int) -> dict[str, Any]:
    return {
        "address": address,
        "size": size,
        "requested_size": size,
        "state": "inactive",
        "frames": [],
    }


def _frames(origin: Origin, kind: str, name: str) -> list[Frame]:
    """Return what the viewer shows of an allocation, the innermost first."""
    site, words = origin.site, operator_name(origin.operator)
    if origin.inside:
        words = f"inside {words}"
    if site.backward_of is not None:
        words += f", backward of {operator_name(site.backward_of)}"
    what = [kind, "recomputed"] if site.recomputed else [kind]
    if origin.dtype is not None and origin.shape is not None:
        what.append(f"{str(origin.dtype).removeprefix('torch.')} {list(origin.shape)}")
    frames = [{"filename": words, "line": 0, "name": ", ".join(what)}]
    frames += [
        {"filename": line.path, "line": line.number, "name": line.function}
        for line in (site.line, site.your_line)
        if line is not None
    ]
    if name or site.module:
        frames.append({"filename": "module", "line": 0, "name": name or site.module})
    return frames


class AddressSpace:
    """Gives out addresses, each in the first gap that is large enough."""

    def __init__(self) -> None:
        self.size = 0
        """How many bytes have been in use, from the first address on."""
        self._gaps: list[tuple[int, int]] = []
        """Address and bytes of each gap below the size, in order; no two touch."""

    def take(self, n_bytes: int) -> int:
        """Return the address of so many bytes, which are in use from now on."""
        for place, (address, size) in enumerate(self._gaps):
            if size >= n_bytes:
                left = [(address + n_bytes, size - n_bytes)] if size > n_bytes else []
                self._gaps[place : place + 1] = left
                return address
        # A gap at the end grows.
        end = _FIRST_ADDRESS + self.size
        address = end
        if self._gaps and sum(self._gaps[-1]) == end:
            address, _ = self._gaps.pop()
        self.size = address + n_bytes - _FIRST_ADDRESS
        return address

    def give_back(self, address: int, n_bytes: int) -> None:
        """Make bytes a gap again, one with the gaps that they touch."""
        place = bisect(self._gaps, (address,))
        before, after = self._gaps[:place][-1:], self._gaps[place : place + 1]
        start, end = address, address + n_bytes
        if before and sum(before[0]) == start:
            start, place = before[0][0], place - 1
        else:
            before = []
        if after and after[0][0] == end:
            end = sum(after[0])
        else:
            after = []
        self._gaps[place : place + len(before) + len(after)] = [(start, end - start)]
