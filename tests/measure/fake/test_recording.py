"""Fake recordings: what a run would allocate, to the byte, with nothing allocated."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.devices import CPU, device_model
from reformer_bench.measure.fake.recording import record_fake_allocations

KIB = 1024


def peaks(recorder, work) -> tuple[int, int]:
    """(peak, left at the end) of a call of ``work``."""
    gc.collect()
    with recorder() as recording:
        with recording.phase("forward"):
            kept = work()
        del kept
    timeline = recording.timeline
    return timeline.peak().allocated_bytes, int(timeline.live_bytes[-1])


def used_twice():
    x = torch.ones(64, 64, requires_grad=True) * 2.0
    y = (x + torch.tanh(x)).exp() * torch.sin(x)
    y.sum().backward()


def used_by_lookup_and_product():
    # The gradient of the product comes first and is a transposed view, so nothing is added into it.
    weight = torch.ones(32, 64, requires_grad=True)
    rows = nn.functional.embedding(torch.zeros(10, dtype=torch.long), weight)
    (torch.tanh(rows) @ weight.t()).sum().backward()


def numbers_in_backward():
    x = torch.ones(64, 64, requires_grad=True) * 2.0
    (x.view(-1) * 3 * (x / 0.5).view(-1)).exp().sum().backward()


def layer_norm_without_weight():
    x = torch.ones(64, 64, requires_grad=True)
    (nn.functional.layer_norm(x, (64,)).exp() + x).tanh().sum().backward()


def layer_norm_with_frozen_weight():
    x, weight = torch.ones(64, 64, requires_grad=True), torch.ones(64)
    nn.functional.layer_norm(x, (64,), weight).exp().sum().backward()


def checkpointed():
    layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Dropout()) for _ in range(3))
    x = torch.ones(8, 16, requires_grad=True)
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False)
    x.sum().backward()


def checkpointed_reentrantly():
    x = torch.ones(8, 16, requires_grad=True)
    checkpoint(
        torch.tanh, checkpoint(torch.exp, x, use_reentrant=True), use_reentrant=True
    ).sum().backward()


def added_to_a_view():
    scores = torch.ones(6, 40, 8, requires_grad=True) @ torch.ones(6, 8, 40)
    biased = scores.view(2, 3, 40, 40)
    biased += torch.ones(1, 3, 40, 40, requires_grad=True)
    biased.softmax(-1).exp().sum().backward()


def products(layout):
    """Products of matrices of which neither rows nor columns lie one after the other."""
    a, b = layout(torch.ones(12, 20)), layout(torch.ones(20, 14))
    return a @ b, torch.addmm(torch.ones(b.shape[-1]), a, b), a.expand(3, *a.shape) @ b


def attention_with_dropout():
    q = torch.ones(2, 3, 40, 8, requires_grad=True)
    nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.1).sum().backward()


def attention():
    q = torch.ones(2, 3, 200, 8, requires_grad=True)
    out = nn.functional.scaled_dot_product_attention(q, q, q[..., ::1], is_causal=True)
    out.transpose(1, 2).reshape(2, 200, 24).sum().backward()


def added_in_place():
    return torch.ones(500).add_(torch.ones(500).bfloat16())


def view_multiplied_in_place():
    x = torch.ones(40, 50, requires_grad=True) + torch.ones(50)
    y = x[3:].transpose(0, 1)
    y *= 0.5
    y.sin().sum()


WORK = {
    "views and in-place operators": lambda: torch.zeros(64, 64)[3:].t().add_(1).mul_(2),
    "narrow dtypes": lambda: (torch.ones(1000, dtype=torch.bool), torch.ones(7).bfloat16()),
    "empty tensors": lambda: [torch.empty(0), torch.ones(3)[:0].clone()],
    "an operand of another dtype is copied": lambda: torch.ones(500) * torch.ones(500).bool(),
    "a result of another dtype than computed in": added_in_place,
    "a number is wrapped": lambda: torch.ones(500, dtype=torch.int32) * 1.5,
    "integers are summed as int64": lambda: torch.ones(500, dtype=torch.bool).sum(),
    "logsumexp": lambda: torch.ones(50, 70).logsumexp(-1, keepdim=True),
    "mean of bfloat16": lambda: torch.ones(50, 70, dtype=torch.bfloat16).mean(-1),
    "sort": lambda: torch.ones(3, 4, 900, dtype=torch.int64).sort(dim=-1, stable=True),
    "layer norm": lambda: nn.LayerNorm(96)(torch.ones(300, 96)).sum().backward(),
    "layer norm without a weight": layer_norm_without_weight,
    "layer norm with a frozen weight": layer_norm_with_frozen_weight,
    "softmax of rows that may be all masked": lambda: torch._safe_softmax(torch.ones(9, 70), -1),
    "the same, transposed": lambda: torch._safe_softmax(torch.ones(300, 9).t(), 0),
    "the same, widened": lambda: torch._safe_softmax(torch.ones(9, 70).half(), -1, torch.float32),
    "gradients of a tensor used twice": used_twice,
    "gradients of a tied weight": used_by_lookup_and_product,
    "numbers that backward nodes keep": numbers_in_backward,
    "attention with dropout": attention_with_dropout,
    "checkpoints": checkpointed,
    "reentrant checkpoints": checkpointed_reentrantly,
    "an addition to a view": added_to_a_view,
    "products with gaps in rows": lambda: products(lambda x: x.repeat(1, 2)[:, : x.shape[1]]),
    "products of every other column": lambda: products(lambda x: x.repeat(1, 2)[:, ::2]),
    "products of one number": lambda: products(lambda x: x[:1, :1].expand(x.shape)),
    "fused attention": attention,
    "a view multiplied in place": view_multiplied_in_place,
    "a storage that grows": lambda: torch.ones(10).resize_(1000),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_peak_and_rest_are_those_of_the_allocator(name):
    assert peaks(record_fake_allocations, WORK[name]) == peaks(record_cpu_allocations, WORK[name])


def test_nothing_is_allocated():
    with record_fake_allocations() as recording, recording.phase("forward"):
        scores = torch.empty(2**20, 2**20)
        assert scores.sum(-1).shape == (2**20,)
        del scores
    assert recording.timeline.peak().allocated_bytes > 2**42


def test_cuda_rounds_to_blocks_and_wraps_no_numbers():
    with record_fake_allocations(device_model("cuda", workspace_bytes=0)) as recording:
        with recording.phase("forward"):
            kept = torch.ones(5) * 2.0
        del kept
    # The operand and the product, a block of 512 bytes each.
    assert recording.timeline.peak().allocated_bytes == 2 * 512
    assert CPU.taken_bytes(20) == 20


def test_operations_are_counted_step_by_step():
    with record_fake_allocations() as recording:
        for step in (0, 1):
            with recording.phase("forward", step):
                for _ in range(step + 1):
                    torch.ones(8, 16) @ torch.ones(16, 4)
    assert recording.flops == {0: 2 * 8 * 16 * 4, 1: 2 * 2 * 8 * 16 * 4}


def fill(into: torch.Tensor) -> None:
    into.add_(torch.ones(256) * 2)


def test_repeated_work_is_followed_once_and_counts_each_time():
    runs: list[int] = []
    into = torch.empty(0)

    def work() -> None:
        runs.append(1)
        fill(into)

    with record_fake_allocations() as recording:
        with recording.phase("forward"):
            into = torch.zeros(256)
            for _ in range(5):
                recording.once("fill", work)
        into = None
    assert len(runs) == 1
    assert peaks(record_fake_allocations, lambda: [fill(torch.zeros(256)) for _ in range(5)]) == (
        recording.timeline.peak().allocated_bytes,
        0,
    )


def test_work_that_keeps_or_frees_something_is_followed_each_time():
    kept, given = [], [torch.empty(0)]

    def keeps() -> None:
        kept.append(torch.ones(KIB))

    def frees() -> None:
        given.clear()

    with record_fake_allocations() as recording, recording.phase("forward"):
        given[:] = [torch.ones(KIB)]
        for _ in range(3):
            recording.once("keeps", keeps)
        recording.once("frees", frees)
        given[:] = [torch.ones(KIB)]
        recording.once("frees", frees)
    assert recording.timeline.live_bytes[-1] == 3 * 4 * KIB
    kept.clear()


def test_what_lives_at_the_peak_is_told_by_place_and_kind():
    with record_fake_allocations() as recording:
        with recording.phase("build"), recording.at("layer"):
            weight = torch.ones(100)
        recording.label("parameters", [weight])
        with recording.phase("forward"), recording.at("other"):
            activation = weight * 2
    peak = recording.timeline.peak_of(recording.timeline.phases[1])
    places = recording.bytes_by_place(peak)
    assert places["layer"] == {"parameters": 400}
    assert places["other"]["activations"] == 400
    alive = [size for kinds in places.values() for size in kinds.values()]
    assert sum(alive) == peak.allocated_bytes
    del activation
