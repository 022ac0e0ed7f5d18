"""Small peers' models and our config for them."""

from __future__ import annotations

import torch

from reformer_bench.schema.model import ModelConfig

VOCAB = 50
LENGTH = 128

SMALL = {
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
    "max_position_embeddings": LENGTH,
    "num_attention_heads": 2,
    "num_buckets": 8,
    "num_hashes": 2,
    "use_cache": False,
    "vocab_size": VOCAB,
}


def hf_model(**fields):
    """A transformers model whose every parameter is random, biases and norms as well."""
    from transformers import ReformerConfig, ReformerForMaskedLM, ReformerModelWithLMHead

    torch.manual_seed(0)
    config = ReformerConfig(**{**SMALL, **fields})
    made = (ReformerModelWithLMHead if config.is_decoder else ReformerForMaskedLM)(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def peer_config(**fields) -> ModelConfig:
    small = {
        "vocab_size": VOCAB,
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


def tokens(
    batch: int = 2, length: int = LENGTH, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(VOCAB, (batch, length), generator=generator) for _ in range(2))
    return first, second
