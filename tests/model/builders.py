"""Small models and inputs for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer_bench.model import ModelConfig, ReformerLM
from reformer_bench.model.attention.common import AttentionSettings

SMALL = {
    "vocab_size": 31,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "n_layers": 3,
    "chunk_length": 8,
    "local_chunk_length": 8,
    "max_length": 256,
    "dtype": "float64",
    "hash_seed": 7,
}


def small_config(**fields) -> ModelConfig:
    return ModelConfig(**{**SMALL, **fields})


def small_model(seed: int = 0, **fields) -> ReformerLM:
    torch.manual_seed(seed)
    return ReformerLM(small_config(**fields))


def batch(model: ReformerLM, n: int, length: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vocab = model.config.vocab_size
    tokens, targets = (torch.randint(vocab, (n, length), generator=generator) for _ in range(2))
    return tokens, targets


def loss_and_grads(model: ReformerLM, tokens: Tensor, targets: Tensor, seed: int = 5):
    torch.manual_seed(seed)
    model.zero_grad()
    loss = model.loss(tokens, targets)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def settings(d_head: int = 8, **fields) -> AttentionSettings:
    defaults = {
        "causal": True,
        "shared_qk": True,
        "scale": 1.0,
        "chunk_length": 8,
        "attend_across_buckets": False,
        "count_duplicates": True,
        "ring": False,
        "lsh_kernel": "auto",
    }
    return AttentionSettings(d_head=d_head, **{**defaults, **fields})


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
