"""A predicted snapshot is one that PyTorch's memory viewer reads, and replays to the peak."""

import pickle
import pickletools

import pytest
import torch
from torch import nn
from torch.cuda import _memory_viz

from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.fake.snapshot import AddressSpace
from reformer_bench.measure.predict import follow
from reformer_bench.run.predict import follow_case, predict_case
from reformer_bench.store import save_snapshot
from tests.builders import case

OPCODES_OF_THE_VIEWER = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT",
    "BINUNICODE", "DICT", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "FRAME", "LIST", "LONG1",
    "LONG_BINGET", "LONG_BINPUT", "MARK", "MEMOIZE", "NEWFALSE", "NEWTRUE", "NONE", "PROTO",
    "SETITEM", "SETITEMS", "SHORT_BINUNICODE", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
"""What ``unpickle`` of torch/utils/viz/MemoryViz.js takes, in protocols 2 to 4."""


def train(module, phase) -> None:
    with phase("forward"):
        loss = module(torch.ones(16, 32)).square().mean()
    with phase("backward"):
        loss.backward()


@pytest.fixture(scope="module")
def recording():
    # Kept alive, so that the snapshot ends with something allocated.
    kept = []
    build = lambda: kept.append(nn.Sequential(nn.Linear(32, 64), nn.GELU())) or kept[0]  # noqa: E731
    return follow(build, train, explain=True)


def replayed(snapshot) -> tuple[int, int]:
    """The highest sum of a trace, and the last; no two allocations overlap, and each is freed as it
    was made.
    """
    live: dict[int, int] = {}
    requested: set[int] = set()
    highest = 0
    for event in snapshot["device_traces"][0]:
        start, size = event["addr"], event["size"]
        match event["action"]:
            case "alloc":
                assert not any(a < start + size and start < a + n for a, n in live.items())
                live[start] = size
                highest = max(highest, sum(live.values()))
            case "free_requested":
                requested.add(start)
            case "free_completed":
                requested.remove(start)
                assert live.pop(start) == size
    assert not requested
    return highest, sum(live.values())


def test_its_trace_replays_to_the_predicted_peak(recording):
    timeline = recording.timeline
    peak, left = replayed(recording.snapshot())
    assert peak == timeline.peak().allocated_bytes == recording.prediction().peak_bytes
    assert left == timeline.live_bytes[-1] > 0


def test_work_that_is_followed_once_is_in_the_trace_with_its_parts():
    asked = case("reversible-transformer", model={"n_layers": 2})
    recording = follow_case(asked)
    peak, _ = replayed(recording.snapshot())
    assert peak == predict_case(asked).peak_bytes
    operators = {e["frames"][0]["filename"] for e in recording.snapshot()["device_traces"][0]}
    assert operators >= {"mm", "native_layer_norm"}


def test_what_is_alive_at_the_end_lies_in_the_segment(recording):
    (segment,) = recording.snapshot()["segments"]
    assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
    alive = [block for block in segment["blocks"] if block["state"] == "active_allocated"]
    assert sum(block["size"] for block in alive) == recording.timeline.live_bytes[-1]
    at = segment["address"]
    for block in segment["blocks"]:
        assert block["address"] == at
        at += block["size"]


def test_frames_say_the_operator_the_line_and_the_module(recording):
    events = recording.snapshot()["device_traces"][0]
    (gelu, *_) = [e for e in events if e["frames"][0]["filename"] == "gelu"]
    what, line, module = gelu["frames"]
    assert what["name"] == "activations, float32 [16, 64]"
    assert (line["filename"], line["name"]) == (__file__, "train")
    assert module["name"] == "1"
    assert gelu["category"] == "activations"


def test_python_s_viewer_reads_it(recording, tmp_path):
    file = tmp_path / "folder" / "predicted.pickle"
    save_snapshot(file, recording.snapshot())
    snapshot = pickle.loads(file.read_bytes())
    left = int(recording.timeline.live_bytes[-1])
    assert f"total_allocated: {_memory_viz.Bytes(left)}" in _memory_viz.segsum(snapshot)
    assert "not measured" in _memory_viz.trace(snapshot)
    for plot in (_memory_viz.trace_plot, _memory_viz.segment_plot):
        assert "MemoryViz.js" in plot(snapshot)
    lines: list[str] = []
    for graph in (_memory_viz.memory, _memory_viz.segments):
        graph(snapshot, format_flamegraph=lines.append)
        assert sum(int(one.rpartition(" ")[2]) for one in lines.pop().splitlines()) >= left


def test_the_browser_s_viewer_knows_how_it_is_pickled(recording, tmp_path):
    file = tmp_path / "predicted.pickle"
    save_snapshot(file, recording.snapshot())
    operations = list(pickletools.genops(file.read_bytes()))
    assert {operation.name for operation, *_ in operations} <= OPCODES_OF_THE_VIEWER
    assert operations[0][1] == 4
    # Without this category it stops with an error wherever there are others.
    categories = [event.get("category") for event in recording.snapshot()["device_traces"][0]]
    assert "unknown" in categories


def test_a_recording_without_origins_has_none():
    with record_fake_allocations() as recording, recording.phase("forward"):
        torch.ones(3)
    with pytest.raises(ValueError, match="explain=True"):
        recording.snapshot()


def test_addresses_fill_the_first_gap_that_is_large_enough():
    space = AddressSpace()
    first, second, third, last = (space.take(size) for size in (10, 20, 30, 1))
    assert [second - first, third - first, last - first] == [10, 30, 60]
    space.give_back(second, 20)
    assert space.take(21) == last + 1
    assert space.take(5) == second
    # Gaps that touch become one.
    space.give_back(first, 10)
    space.give_back(second, 5)
    assert space.take(30) == first
    assert space.size == 82
    space.give_back(last + 1, 21)
    assert space.take(40) == last + 1
    assert space.size == 101
