"""Products of bfloat16 and float16: predicted to the byte on whatever processor the tests run."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake import half_precision
from reformer_bench.measure.fake.recording import record_fake_allocations

_aten = torch.ops.aten
FLASH = _aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward


def _peaks(work):
    """(predicted, measured) peak of a piece of work."""
    peaks = []
    for record in (record_fake_allocations, record_cpu_allocations):
        with torch.no_grad(), record() as recording, recording.phase("forward"):
            work()
        peaks.append(recording.timeline.peak_of_step(0).allocated_bytes)
    return tuple(peaks)


def _matrix(batch, rows, columns, layout, dtype):
    """By rows, by columns, or every second row of a larger one."""
    outer = (batch,) if batch else ()
    if layout == "columns":
        return torch.ones(*outer, columns, rows, dtype=dtype).mT
    if layout == "neither":
        return torch.ones(*outer, 2 * rows, columns + 3, dtype=dtype)[..., ::2, :columns]
    return torch.ones(*outer, rows, columns, dtype=dtype)


SIZE = st.one_of(st.integers(1, 70), st.integers(64, 600))
LAYOUT = st.sampled_from(["rows", "columns", "neither"])


@settings(deadline=None, max_examples=60)
@given(
    batch=st.sampled_from([0, 0, 1, 3]),
    m=SIZE,
    k=SIZE,
    n=SIZE,
    layouts=st.tuples(LAYOUT, LAYOUT),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    added=st.booleans(),
)
def test_a_products_peak_is_predicted_to_the_byte(batch, m, k, n, layouts, dtype, added):
    def work():
        a = _matrix(batch, m, k, layouts[0], dtype)
        b = _matrix(batch, k, n, layouts[1], dtype)
        if batch:
            torch.bmm(a, b)
        elif added:
            torch.addmm(torch.ones(n, dtype=dtype), a, b)
        else:
            torch.mm(a, b)

    predicted, measured = _peaks(work)
    assert predicted == measured


@settings(deadline=None, max_examples=25)
@given(
    heads=st.sampled_from([1, 3, 4]),
    length=st.integers(1, 400),
    width=st.sampled_from([7, 16, 33, 64]),
    causal=st.booleans(),
    backward=st.booleans(),
    n_threads=st.sampled_from([1, 3]),
)
def test_flash_attentions_peak_is_predicted_to_the_byte(
    heads, length, width, causal, backward, n_threads
):
    def work():
        q, k, v, dout = (
            torch.ones(2, length, heads, width, dtype=torch.bfloat16).transpose(1, 2)
            for _ in range(4)
        )
        if backward:
            normaliser = torch.ones(2, length, heads).transpose(1, 2)
            FLASH_BACKWARD(dout, q, k, v, q, normaliser, 0.0, causal)
        else:
            FLASH(q, k, v, 0.0, causal)

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        predicted, measured = _peaks(work)
    finally:
        torch.set_num_threads(before)
    assert predicted == measured


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("batch", "m", "k", "n"),
    [
        (0, 5000, 64, 256),
        (0, 256, 9000, 64),
        pytest.param(0, 16384, 4096, 48, marks=pytest.mark.slow),
        (12, 900, 64, 900),
    ],
    ids=str,
)
def test_a_large_products_stand_in_never_says_less(batch, m, k, n, n_threads, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        for layouts in [("rows", "columns"), ("columns", "rows"), ("columns", "columns")]:
            a = _matrix(batch, m, k, layouts[0], torch.bfloat16)
            b = _matrix(batch, k, n, layouts[1], torch.bfloat16)
            packet = _aten.bmm if batch else _aten.mm
            exact = half_precision._held_bytes(packet, a, b)
            monkeypatch.setattr(half_precision, "_MOST_MULTIPLICATIONS", 2**24)
            assert half_precision.product_bytes(packet, a, b) >= exact
    finally:
        torch.set_num_threads(before)


def test_a_lesser_processor_played_by_onednn_holds_no_buffers():
    code = (
        "import torch; from reformer_bench.measure.fake import half_precision;"
        "a, b = torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16);"
        "print(half_precision.computes_natively(torch.bfloat16),"
        " half_precision.product_bytes(torch.ops.aten.mm, a, b))"
    )
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "0"]


@pytest.mark.parametrize(
    ("shape", "order", "target"),
    [((1, 1, 128, 512), (0, 1, 3, 2), (1, 512, 128)), ((1, 3, 1, 4), (2, 1, 0, 3), (3, 1, 4))],
    ids=str,
)
def test_views_have_the_strides_that_pytorch_gives_them(shape, order, target):
    """Dimensions of size 1 have strides too, and kernels copy by them."""
    strides = []

    def work():
        strides.append(torch.empty(shape).permute(order).view(target).stride())

    _peaks(work)
    assert strides[0] == strides[1]
