"""ShapeMemo: what was seen once is made again alike, without asking FakeTensorMode."""

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from reformer_bench.measure.fake import memo
from reformer_bench.measure.fake.recording import record_fake_allocations

RUNS = 3


def work() -> None:
    x = torch.ones(5, 7, requires_grad=True)
    for _ in range(RUNS):
        y = torch.sigmoid(x).t()[1:] * 2.0
        y.add_(1).exp().sum().backward()


def events() -> list[int]:
    with record_fake_allocations() as recording, recording.phase("forward"):
        work()
    return recording.timeline.delta_bytes.tolist()


def test_repeated_operators_do_not_reach_the_mode_again(monkeypatch):
    asked: list[str] = []
    dispatch = FakeTensorMode.dispatch

    def counted(self, func, *args, **kwargs):
        asked.append(str(func))
        return dispatch(self, func, *args, **kwargs)

    monkeypatch.setattr(FakeTensorMode, "dispatch", counted)
    monkeypatch.setattr(memo, "_LEARNED", {})
    events()
    assert asked.count("aten.sigmoid.default") == 1
    assert asked.count("aten.exp.default") == 1
    asked.clear()
    events()
    # Not even for the devices that autograd asks of every gradient.
    assert asked == []


def test_events_are_the_same_without_the_memo(monkeypatch):
    with_memo = events()
    monkeypatch.setattr(memo, "_key", lambda *_: None)
    assert with_memo == events()


def test_a_tensor_made_again_is_like_one_of_the_mode():
    with record_fake_allocations():
        x = torch.ones(5, 7)
        first, again = torch.tanh(x), torch.tanh(x)
    assert type(again) is FakeTensor
    assert vars(again) == vars(first)
    assert (again.device, again.stride()) == (first.device, first.stride())
