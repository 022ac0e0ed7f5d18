"""Launches and bytes are those that can be counted by hand."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reformer_bench.measure.roofline import NOTHING, Work, work_of
from reformer_bench.schema.devices import device_profile


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work = NOTHING

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.work += work_of(func, out, args, kwargs or {})
        return out


def counted(run) -> Work:
    with Counted() as mode:
        run()
    return mode.work


x, y = torch.zeros(6, 4), torch.zeros(6, 4)
half = torch.zeros(6, 4, dtype=torch.bfloat16)
weight, rows = torch.zeros(5, 4), torch.zeros(6, 5)
X = 6 * 4 * 4


@pytest.mark.parametrize(
    ("run", "launches", "moved_bytes"),
    [
        (lambda: x.t()[1:].unflatten(1, (2, 3)).detach(), 0, 0),
        (lambda: x.new_empty(7), 0, 0),
        (lambda: x + y, 1, 3 * X),
        (lambda: x.add_(y), 1, 3 * X),
        (lambda: x.mul_(2.0), 1, 2 * X),
        (lambda: x.zero_(), 1, X),
        (lambda: torch.zeros(3), 1, 12),
        (lambda: x.copy_(half), 1, X + X // 2),
        (lambda: half.to(torch.float32), 1, X + X // 2),
        (lambda: x.to(torch.float32), 0, 0),
        (lambda: torch.mm(rows, weight, out=x), 1, 2 * X + 6 * 5 * 4 - X + 5 * 4 * 4),
        (lambda: x.addmm_(rows, weight), 1, 2 * X + 6 * 5 * 4 + 5 * 4 * 4),
        (lambda: x + y[:1].expand(6, 4), 1, 2 * X + 16),
        (lambda: weight[torch.tensor([1, 2])], 1, 2 * 32 + 16),
        (lambda: torch._foreach_add_([x] * 70, [y] * 70), 2, 70 * 3 * X),
    ],
)  # fmt: skip
def test_work_of_an_operator(run, launches, moved_bytes):
    assert counted(run) == Work(launches, moved_bytes)


@pytest.mark.parametrize(
    ("dtype", "moved_bytes", "flops", "bound_ms"),
    [
        ("bfloat16", 3_350_000_000, 10, 1.0),
        ("bfloat16", 10, 989_000_000_000_000, 1000.0),
        ("float32", 10, 495_000_000_000_000, 1000.0),
        ("float64", 10, 10, None),
    ],
)
def test_the_bound_is_the_slower_of_bytes_and_flops(dtype, moved_bytes, flops, bound_ms):
    found = device_profile("h100-80").lower_bound_ms(moved_bytes, flops, dtype)
    assert found == (bound_ms if bound_ms is None else pytest.approx(bound_ms))


def test_a_device_of_unknown_speed_has_no_bound():
    assert device_profile("paper-16").lower_bound_ms(10, 10, "float32") is None
