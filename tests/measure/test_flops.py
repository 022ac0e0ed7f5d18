"""Every matrix product counts 2·m·k·n, in whatever form it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from reformer_bench.measure.flops import count_flops, matmul_flops_per_second, missing_formulas

M, K, N, B = 3, 5, 7, 2
a, b, out = torch.ones(M, K), torch.ones(K, N), torch.ones(M, N)
a3, b3, out3 = torch.ones(B, M, K), torch.ones(B, K, N), torch.ones(B, M, N)


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        pytest.param(lambda: a @ b, 2 * M * K * N, id="mm"),
        pytest.param(lambda: torch.mm(a, b, out=out), 2 * M * K * N, id="mm-out"),
        pytest.param(lambda: torch.addmm(out, a, b), 2 * M * K * N, id="addmm"),
        pytest.param(lambda: torch.addmm(out, a, b, out=out), 2 * M * K * N, id="addmm-out"),
        pytest.param(lambda: out.addmm_(a, b, alpha=-1), 2 * M * K * N, id="addmm_"),
        pytest.param(lambda: F.linear(a, b.T, torch.ones(N)), 2 * M * K * N, id="linear"),
        pytest.param(lambda: a @ torch.ones(K), 2 * M * K, id="mv"),
        pytest.param(lambda: torch.bmm(a3, b3), 2 * B * M * K * N, id="bmm"),
        pytest.param(lambda: torch.bmm(a3, b3, out=out3), 2 * B * M * K * N, id="bmm-out"),
        pytest.param(lambda: torch.baddbmm(out3, a3, b3), 2 * B * M * K * N, id="baddbmm"),
        pytest.param(lambda: out3.baddbmm_(a3, b3, beta=0), 2 * B * M * K * N, id="baddbmm_"),
        pytest.param(lambda: torch.einsum("bmk,bkn->bmn", a3, b3), 2 * B * M * K * N, id="einsum"),
        pytest.param(lambda: a + 1, 0, id="element-wise"),
    ],
)
def test_a_product_counts_the_same_in_every_form(
    product: Callable[[], torch.Tensor], expected: int
) -> None:
    assert count_flops(product) == expected
    with torch.inference_mode():
        assert count_flops(product) == expected


def test_fused_attention_on_the_cpu_counts_as_its_products_do() -> None:
    heads, queries, keys, width = 3, 6, 10, 8
    q = torch.randn(B, heads, queries, width, requires_grad=True)
    k, v = (torch.randn(B, heads, keys, width, requires_grad=True) for _ in range(2))
    one = 2 * B * heads * queries * keys * width

    def plain() -> None:
        (torch.softmax(q @ k.mT, -1) @ v).sum().backward()

    def fused() -> None:
        F.scaled_dot_product_attention(q, k, v).sum().backward()

    assert count_flops(plain) == (2 + 4) * one
    # The fused backward computes the scores once more.
    assert count_flops(fused) == (2 + 5) * one


def test_recomputation_counts_as_often_as_it_runs() -> None:
    w = torch.ones(K, K, requires_grad=True)
    x = torch.ones(M, K, requires_grad=True)
    one = 2 * M * K * K

    def step(use_checkpoint: bool) -> None:
        def layer(t: torch.Tensor) -> torch.Tensor:
            return (t @ w).relu()

        checkpoint = torch.utils.checkpoint.checkpoint
        y = checkpoint(layer, x, use_reentrant=False) if use_checkpoint else layer(x)
        y.sum().backward()

    assert count_flops(lambda: step(False)) == 3 * one
    assert count_flops(lambda: step(True)) == 4 * one


def test_formulas_are_given_only_where_torch_has_none() -> None:
    from torch.utils.flop_counter import flop_registry

    assert not set(missing_formulas()) & set(flop_registry)


def test_the_speed_of_a_product_is_a_positive_number() -> None:
    assert matmul_flops_per_second(torch.device("cpu"), torch.float32) > 0
