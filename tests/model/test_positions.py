"""Embeddings: the table each position reads, and the gradient it gets back."""

import pytest
import torch

from reformer_bench.model.embedding import Embedding
from tests.models import small_config


def _plain(module, tokens):
    x = module.tokens.weight[tokens]
    tables = list(module.positions)
    p = torch.arange(tokens.shape[1])
    if len(tables) == 2:
        n = tables[1].shape[0]
        return x + torch.cat([tables[0][p // n], tables[1][p % n]], -1)
    return x + tables[0][p] if tables else x


@pytest.mark.parametrize("length", [1, 15, 16, 17, 64, 100])
@pytest.mark.parametrize("positions", ["axial", "learned", "none"])
def test_lookup_and_gradient(positions, length):
    torch.manual_seed(0)
    module = Embedding(small_config(positions=positions)).double()
    tokens = torch.randint(31, (2, length))
    weight = torch.randn(2, length, 16, dtype=torch.float64)
    plain = _plain(module, tokens)
    wanted = torch.autograd.grad((plain * weight).sum(), list(module.parameters()))
    x = module(tokens)
    found = torch.autograd.grad((x * weight).sum(), list(module.parameters()))
    torch.testing.assert_close(x, plain)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_a_million_positions_cost_a_few_thousand_rows():
    module = Embedding(small_config(max_length=2**20))
    assert sum(table.shape[0] for table in module.positions) == 2048
