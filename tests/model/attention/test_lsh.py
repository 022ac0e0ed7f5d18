"""LSH attention against the quadratic reference, for every switch."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reformer_bench.model.attention.common import SELF_PENALTY
from reformer_bench.model.attention.dense import full_attention
from reformer_bench.model.attention.kernels.eager import EagerKernel
from reformer_bench.model.attention.kernels.flash_cpu import FlashCpuKernel
from reformer_bench.model.attention.lsh import lsh_attention
from tests.model.reference import lsh_reference
from tests.models import settings

D = 8
KERNELS = {"eager": EagerKernel(), "flash": FlashCpuKernel()}


def _inputs(batch, length, heads, n_rounds, n_buckets, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    qv = torch.randn(batch, length, heads, 2 * D, generator=generator).to(dtype)
    buckets = torch.randint(n_buckets, (batch * heads, n_rounds, length), generator=generator)
    return qv, buckets


def _reference(qv, buckets, cfg, valid=None):
    batch, _, heads, _ = qv.shape
    rows = [
        [
            lsh_reference(
                qv[b, :, h],
                buckets[b * heads + h],
                cfg.chunk_length,
                causal=cfg.causal,
                across=cfg.attend_across_buckets,
                once=not cfg.count_duplicates,
                ring=cfg.ring,
                scale=cfg.scale,
                valid=None if valid is None else valid[b],
            )
            for h in range(heads)
        ]
        for b in range(batch)
    ]
    return torch.stack([torch.stack(heads_of, 1) for heads_of in rows])


CASES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "length": st.integers(1, 30),
        "heads": st.integers(1, 2),
        "n_rounds": st.integers(1, 8),
        # Up to twice as many buckets as tokens.
        "n_buckets": st.integers(1, 60),
        "seed": st.integers(0, 10**6),
    }
)
SWITCHES = st.fixed_dictionaries(
    {
        "causal": st.booleans(),
        "attend_across_buckets": st.booleans(),
        "count_duplicates": st.booleans(),
        "ring": st.booleans(),
        "chunk_length": st.sampled_from([1, 3, 4, 8]),
        "scale": st.sampled_from([1.0, D**-0.5]),
    }
)


@pytest.mark.parametrize("kernel", KERNELS)
@hypothesis_settings(max_examples=50, deadline=None)
@given(case=CASES, switches=SWITCHES, padded=st.booleans())
def test_output_and_gradient_are_those_of_the_equations(kernel, case, switches, padded):
    cfg = settings(D, **switches)
    qv, buckets = _inputs(**case)
    valid = None
    if padded:
        valid = torch.rand(case["batch"], case["length"]) < 0.8
        valid[:, -1] = True
    found_in, wanted_in = qv.clone().requires_grad_(), qv.clone().requires_grad_()
    found = lsh_attention(found_in, buckets, cfg, valid, KERNELS[kernel])
    wanted = _reference(wanted_in, buckets, cfg, valid)
    assert torch.isfinite(found).all()
    real = slice(None) if valid is None else valid
    torch.testing.assert_close(found[real], wanted[real], rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(found)
    if valid is not None:
        weight = weight * valid[:, :, None, None]
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(found_in.grad, wanted_in.grad, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 17, 64])
def test_one_chunk_and_one_bucket_is_full_attention(length, causal, kernel):
    qv, _ = _inputs(2, length, 2, 1, 1, seed=3)
    cfg = settings(D, causal=causal, chunk_length=64)
    buckets = torch.zeros(4, 1, length, dtype=torch.int64)
    found = lsh_attention(qv, buckets, cfg, None, KERNELS[kernel])
    torch.testing.assert_close(found, full_attention(qv, cfg, None), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "switches",
    [
        {"n_rounds": 1},
        {"n_rounds": 3, "count_duplicates": False},
        {"n_rounds": 2, "attend_across_buckets": True, "ring": True},
        {"n_rounds": 2, "causal": False},
    ],
    ids=str,
)
def test_gradcheck(switches, kernel):
    switches = dict(switches)
    qv, buckets = _inputs(1, 11, 1, switches.pop("n_rounds"), 4, seed=1)
    cfg = settings(D, chunk_length=4, **switches)
    assert torch.autograd.gradcheck(
        lambda x: lsh_attention(x, buckets, cfg, None, KERNELS[kernel]), qv.requires_grad_()
    )


@pytest.mark.parametrize("across", [False, True])
def test_later_tokens_change_nothing_before_them(across):
    cfg = settings(D, attend_across_buckets=across)
    qv, buckets = _inputs(1, 45, 2, 4, 6, seed=2)
    before = lsh_attention(qv, buckets, cfg, None, KERNELS["flash"])
    for i in (0, 13, 43):
        changed = qv.clone()
        changed[:, i + 1 :] = torch.randn_like(changed[:, i + 1 :])
        after = lsh_attention(changed, buckets, cfg, None, KERNELS["flash"])
        assert torch.equal(after[:, : i + 1], before[:, : i + 1])


def test_a_token_alone_in_every_bucket_gives_its_value_exactly_in_float32():
    qv, _ = _inputs(1, 24, 1, 1, 1, seed=4, dtype=torch.float32)
    buckets = torch.arange(24).expand(1, 4, 24).contiguous()
    qv.requires_grad_()
    out = lsh_attention(qv, buckets, settings(D), None, KERNELS["flash"])
    assert torch.equal(out, qv[..., D:])
    (grad,) = torch.autograd.grad(out.sum(), qv)
    assert torch.equal(grad[..., D:], torch.ones_like(grad[..., D:]))
    assert torch.equal(grad[..., :D], torch.zeros_like(grad[..., :D]))


def test_large_queries_stay_finite():
    qv, buckets = _inputs(1, 64, 1, 4, 4, seed=6, dtype=torch.float32)
    qv = (qv * 500).requires_grad_()
    out = lsh_attention(qv, buckets, settings(D), None, KERNELS["flash"])
    (grad,) = torch.autograd.grad(out.sum(), qv)
    assert torch.isfinite(out).all()
    assert torch.isfinite(grad).all()
    assert SELF_PENALTY > 500 * D


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_and_eager_kernels_agree(dtype):
    qv, buckets = _inputs(2, 200, 2, 4, 8, seed=8)
    cfg = settings(D, count_duplicates=False)
    results = []
    for kernel in KERNELS.values():
        x = qv.to(dtype).requires_grad_()
        out = lsh_attention(x, buckets, cfg, None, kernel)
        (grad,) = torch.autograd.grad(out.sum(), x)
        results.append((out.float(), grad.float()))
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 0.05, "atol": 0.06}
    )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **tolerance)
