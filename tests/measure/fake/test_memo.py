"""ShapeMemo: what was seen once is made again alike, without asking FakeTensorMode."""

import inspect

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from reformer_bench.measure.fake import memo
from reformer_bench.measure.fake.by_operator import by_operator
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
    monkeypatch.setattr(memo, "_learned_of", by_operator(inspect.unwrap(memo._learned_of)))
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


def test_the_same_view_from_another_place_is_made_from_what_is_known(monkeypatch):
    asked: list[str] = []
    dispatch = FakeTensorMode.dispatch

    def counted(self, func, *args, **kwargs):
        asked.append(str(func))
        return dispatch(self, func, *args, **kwargs)

    with record_fake_allocations():
        rows = torch.ones(6, 4, 5)
        monkeypatch.setattr(FakeTensorMode, "dispatch", counted)
        views = [row[1:, ::2].t() for row in rows.unbind(0)]
    assert asked == []
    real = [row[1:, ::2].t() for row in torch.ones(6, 4, 5).unbind(0)]
    assert [(v.shape, v.stride(), v.storage_offset()) for v in views] == [
        (v.shape, v.stride(), v.storage_offset()) for v in real
    ]


def test_a_view_at_a_place_of_the_storage_stays_there():
    with record_fake_allocations():
        x = torch.ones(10)
        places = [y.as_strided((2,), (1,), 3).storage_offset() for y in (x, x[2:], x[5:])]
    assert places == [3, 3, 3]
