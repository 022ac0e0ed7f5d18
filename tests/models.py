"""Small models, ours and the peers', and inputs for them."""

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
"""Ours, in double precision, so that differences are no rounding."""

PEER_VOCAB = 50
PEER_LENGTH = 128

HF_SMALL = {
    "attention_head_size": 16,
    "attn_layers": ["lsh"],
    "axial_pos_embds_dim": [8, 24],
    "axial_pos_shape": [8, 16],
    "feed_forward_size": 48,
    "hash_seed": 3,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 32,
    # Large weights, so that differences in attention reach the logits.
    "initializer_range": 0.3,
    "is_decoder": True,
    "layer_norm_eps": 1e-6,
    "local_attention_probs_dropout_prob": 0.0,
    "local_attn_chunk_length": 16,
    "lsh_attn_chunk_length": 16,
    "max_position_embeddings": PEER_LENGTH,
    "num_attention_heads": 2,
    "num_buckets": 8,
    "num_hashes": 2,
    "use_cache": False,
    "vocab_size": PEER_VOCAB,
}
"""The same in transformers' words."""


def small_config(**fields) -> ModelConfig:
    return ModelConfig(**{**SMALL, **fields})


def small_model(seed: int = 0, **fields) -> ReformerLM:
    torch.manual_seed(seed)
    return ReformerLM(small_config(**fields))


def tokens(
    n: int = 2, length: int = PEER_LENGTH, seed: int = 1, vocab_size: int = PEER_VOCAB
) -> tuple[Tensor, Tensor]:
    """Random tokens and targets, [n, length] each."""
    generator = torch.Generator().manual_seed(seed)
    made, targets = (torch.randint(vocab_size, (n, length), generator=generator) for _ in range(2))
    return made, targets


def batch(model: ReformerLM, n: int, length: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random tokens and targets of the model's vocabulary, [n, length] each."""
    return tokens(n, length, seed, model.config.vocab_size)


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


def hf_model(**fields):
    """A transformers model whose every parameter is random, biases and norms as well."""
    from transformers import ReformerConfig, ReformerForMaskedLM, ReformerModelWithLMHead

    torch.manual_seed(0)
    config = ReformerConfig(**{**HF_SMALL, **fields})
    made = (ReformerModelWithLMHead if config.is_decoder else ReformerForMaskedLM)(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def peer_config(**fields) -> ModelConfig:
    small = {
        "vocab_size": PEER_VOCAB,
        "d_model": 32,
        "d_ff": 64,
        "n_heads": 2,
        "n_layers": 2,
        "n_hashes": 2,
        "chunk_length": 16,
        "local_chunk_length": 16,
        "max_length": 256,
        "ff_chunks": 4,
        "attend_across_buckets": True,
        "look_back": "ring",
    }
    return ModelConfig(**{**small, **fields})
