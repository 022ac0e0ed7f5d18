"""Full, memory-efficient and fused attention are the same function, and the reference's."""

import pytest
import torch

from reformer_bench.model.attention.common import unit_keys
from reformer_bench.model.attention.dense import (
    QUERY_BLOCK,
    full_attention,
    memory_efficient_attention,
    sdpa_attention,
)
from reformer_bench.model.attention.kernels.eager import EagerKernel
from reformer_bench.model.attention.kernels.flash_cpu import FlashCpuKernel
from reformer_bench.model.attention.lsh import local_attention
from tests.model.reference import full_reference, times_seen, weighted
from tests.models import settings

KINDS = {
    "full": full_attention,
    "memory_efficient": memory_efficient_attention,
    "sdpa": sdpa_attention,
}
SHAPES = [(1, 1, 1), (2, 2, 3), (1, 37, 1), (2, QUERY_BLOCK + 3, 2)]


def _packed(shape, shared, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch, length, heads = shape
    width = (2 if shared else 3) * d
    return torch.randn(batch, length, heads, width, dtype=torch.float64, generator=generator)


def _reference(qkv, causal, shared, scale, valid=None):
    batch, length, heads, _ = qkv.shape
    out = torch.empty(batch, length, heads, 8, dtype=qkv.dtype)
    for b in range(batch):
        for h in range(heads):
            parts = qkv[b, :, h].split(8, -1)
            q, v = parts[0], parts[-1]
            k = unit_keys(q) if shared else parts[1]
            out[b, :, h] = full_reference(
                q,
                k,
                v,
                causal=causal,
                exclude_self=shared,
                scale=scale,
                valid=None if valid is None else valid[b],
            )
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("causal", "shared"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradient_are_those_of_the_reference(kind, causal, shared, shape):
    qkv = _packed(shape, shared)
    weight = torch.randn(*shape, 8, dtype=torch.float64)
    wanted_in, found_in = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    wanted = _reference(wanted_in, causal, shared, 0.3)
    found = KINDS[kind](found_in, settings(causal=causal, shared_qk=shared, scale=0.3), None)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)
    (wanted * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(found_in.grad, wanted_in.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["full", "memory_efficient"])
def test_shared_keys_work_without_causality(kind):
    qkv = _packed((2, 19, 2), shared=True)
    found = KINDS[kind](qkv, settings(causal=False), None)
    torch.testing.assert_close(found, _reference(qkv, False, True, 1.0), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("causal", "shared"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_attended_to(kind, causal, shared):
    qkv = _packed((2, 21, 2), shared)
    valid = torch.ones(2, 21, dtype=torch.bool)
    valid[0, 15:] = False
    valid[1, :4] = False
    found = KINDS[kind](qkv, settings(causal=causal, shared_qk=shared), valid)
    wanted = _reference(qkv, causal, shared, 1.0, valid)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[valid], wanted[valid], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 2), (2, 8, 1), (1, 30, 2)], ids=str)
@pytest.mark.parametrize(("causal", "shared"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("kernel", [EagerKernel(), FlashCpuKernel()], ids=["eager", "flash"])
def test_local_attention_sees_its_chunk_and_the_one_before(kernel, causal, shared, shape):
    qkv = _packed(shape, shared).requires_grad_()
    found = local_attention(
        qkv, settings(causal=causal, shared_qk=shared, chunk_length=8), None, kernel
    )
    batch, length, heads, _ = qkv.shape
    times = times_seen(torch.zeros(1, length), 8, across=True, ring=False)[0]
    if causal:
        times = times.tril()
    wanted = torch.empty_like(found)
    for b in range(batch):
        for h in range(heads):
            parts = qkv[b, :, h].split(8, -1)
            k = unit_keys(parts[0]) if shared else parts[1]
            scores = parts[0] @ k.T
            if shared:
                scores = scores - 1e5 * torch.eye(length, dtype=scores.dtype)
            wanted[b, :, h] = weighted(scores, times, parts[-1])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)
    weight = torch.randn_like(found)
    (wanted_grad,) = torch.autograd.grad((wanted * weight).sum(), qkv, retain_graph=True)
    (found_grad,) = torch.autograd.grad((found * weight).sum(), qkv)
    torch.testing.assert_close(found_grad, wanted_grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("length", [8, 24, 29])
@pytest.mark.parametrize("causal", [True, False])
def test_in_a_ring_the_first_local_chunk_sees_the_last_where_it_may(causal, length):
    qkv = _packed((2, length, 1), False).requires_grad_()
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[0, length - 3 :] = False
    found = local_attention(
        qkv, settings(causal=causal, shared_qk=False, ring=True), valid, EagerKernel()
    )
    wanted = torch.empty_like(found)
    for b in range(2):
        q, k, v = qkv[b, :, 0].split(8, -1)
        # Padding keeps its place in local chunks, so that it is hidden here and not sorted away.
        times = times_seen(torch.zeros(1, length), 8, across=True, ring=True)[0] * valid[b]
        wanted[b, :, 0] = weighted(q @ k.T, times.tril() if causal else times, v)
    torch.testing.assert_close(found[valid], wanted[valid], rtol=1e-10, atol=1e-11)
    weight = torch.randn_like(found) * valid[..., None, None]
    (wanted_grad,) = torch.autograd.grad((wanted * weight).sum(), qkv, retain_graph=True)
    (found_grad,) = torch.autograd.grad((found * weight).sum(), qkv)
    torch.testing.assert_close(found_grad, wanted_grad, rtol=1e-9, atol=1e-10)
