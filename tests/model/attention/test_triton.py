"""The fused Triton programs, run by Triton's interpreter, against the plain kernel."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from reformer_bench.model.attention.kernels.triton import why_not_fused
from tests.models import settings, small_config

ROOT = Path(__file__).parents[3]

# The interpreter is chosen when the programs are defined, so it needs a process of its own.
PROGRAM = """
    import itertools
    import sys
    import torch
    from reformer_bench.model.attention.kernels.eager import EagerKernel
    from reformer_bench.model.attention.kernels.triton import TritonKernel
    from reformer_bench.model.attention.lsh import (
        draw_rotations, hash_queries, hashed_attention, local_attention, lsh_attention,
    )
    from reformer_bench.model.attention.plan import plan_chunks
    from tests.models import settings

    def both(run, qkv, tolerance):
        results = []
        for kernel in (EagerKernel(), TritonKernel()):
            x = qkv.clone().requires_grad_()
            out = run(x, kernel)
            torch.manual_seed(1)
            (grad,) = torch.autograd.grad((out * torch.randn(out.shape)).sum(), x)
            results.append((out.float(), grad.float()))
        for found, wanted in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)

    def lsh(fields, shapes, dtype, tolerance):
        for batch, length, heads, rounds in shapes:
            cfg = settings(16, scale=0.7, **fields)
            qv = torch.randn(batch, length, heads, 32).to(dtype)
            buckets = torch.randint(5, (batch * heads, rounds, length))
            valid = torch.rand(batch, length) < 0.9 if length > 1 else None
            both(lambda x, k: lsh_attention(x, buckets, cfg, None, k), qv, tolerance)
            if valid is not None:
                weight = valid[:, :, None, None]
                padded = lambda x, k: lsh_attention(x, buckets, cfg, valid, k) * weight
                both(padded, qv, tolerance)

    torch.manual_seed(0)
    SHAPES = ((1, 37, 2, 3), (2, 48, 1, 1), (1, 1, 1, 2))
    # NumPy, in which the interpreter computes, has no bfloat16: the other half stands in for it.
    DTYPES = ((torch.float32, 3e-5), (torch.float16, 4e-2))
    what = sys.argv[1]
    if what == "dtypes":
        # Chunks of one tile, and of two and four.
        for (dtype, tolerance), chunk, causal in itertools.product(DTYPES, (16, 64), (True, False)):
            fields = {"chunk_length": chunk, "causal": causal}
            lsh(fields, SHAPES if chunk == 16 else ((1, 150, 2, 2),), dtype, tolerance)
            for shared in (True, False):
                cfg = settings(16, chunk_length=32, causal=causal, shared_qk=shared, local=True)
                qkv = torch.randn(2, 75, 2, 32 if shared else 48).to(dtype)
                both(lambda x, k: local_attention(x, cfg, None, k), qkv, tolerance)
    elif what == "switches":
        for causal, across, duplicates, ring in itertools.product((True, False), repeat=4):
            fields = {
                "chunk_length": 16, "causal": causal, "attend_across_buckets": across,
                "count_duplicates": duplicates, "ring": ring,
            }
            lsh(fields, ((1, 37, 1, 2),), torch.float32, 3e-5)
    elif what == "plan":
        for ring, across in itertools.product((False, True), repeat=2):
            cfg = settings(16, chunk_length=32, ring=ring, attend_across_buckets=across)
            for length, factors in ((40, (4, 6)), (32, (140,)), (5, ())):
                qv = torch.randn(2, length, 2, 32)
                count = sum(factors) // 2
                rotations = draw_rotations(2, 16, 3, factors, 5, torch.device("cpu"), qv.dtype)
                buckets = hash_queries(qv, rotations, factors, 16)
                for valid in (None, torch.rand(2, length) < 0.8):
                    of_head = None if valid is None else valid.repeat_interleave(2, 0)
                    wanted = plan_chunks(
                        buckets, 32, across_buckets=across, ring=ring, valid_NL=of_head
                    )
                    found = TritonKernel().plan(qv, rotations, factors, cfg, valid)
                    assert torch.equal(found.position_NRS.long(), wanted.position_NRS)
                    assert torch.equal(found.code_NRS, wanted.code_NRS)
    else:
        # A gradient that is one number, expanded, and rows with gaps.
        cfg = settings(16, chunk_length=16)
        buckets = torch.randint(5, (2, 2, 40))
        wide = torch.randn(1, 40, 2, 48)
        for kernel in (EagerKernel(), TritonKernel()):
            x = wide.clone().requires_grad_()
            lsh_attention(x[..., 8:40], buckets, cfg, None, kernel).sum().backward()
            if kernel == EagerKernel():
                expected = x.grad
        torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-5)
    print("agree")
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dtypes", "switches", "plan", "gaps"])
def test_output_and_gradient_are_those_of_the_plain_kernel(what):
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), what],
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-3000:]


@pytest.mark.parametrize(
    ("fields", "dtype", "named"),
    [
        ({"chunk_length": 24}, torch.float32, "chunk_length = 24"),
        ({"chunk_length": 8}, torch.float32, "chunk_length = 8"),
        ({"d_head": 20, "chunk_length": 16}, torch.float32, "d_head = 20"),
        ({"d_head": 16, "chunk_length": 16}, torch.float64, "float64"),
    ],
)
def test_what_is_not_covered_is_named(fields, dtype, named):
    assert named in why_not_fused(settings(**{"d_head": 16, **fields}), dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_on_cuda_gives_the_same_loss_and_gradients_with_either_kernel(dtype):
    from reformer_bench.model import ReformerLM

    fields = {"d_model": 64, "chunk_length": 32, "dtype": dtype, "attention": "lsh,local"}
    results = []
    for kernel in ("eager", "triton"):
        torch.manual_seed(0)
        model = ReformerLM(small_config(**fields, lsh_kernel=kernel)).place("cuda")
        tokens = torch.randint(31, (2, 200), generator=torch.Generator().manual_seed(1)).cuda()
        loss = model.loss(tokens, tokens)
        loss.backward()
        results.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    near = 1e-3 if dtype == "float32" else 3e-2
    torch.testing.assert_close(results[1][0], results[0][0], rtol=near, atol=near)
    assert (results[1][1] - results[0][1]).norm() < near * results[0][1].norm()
