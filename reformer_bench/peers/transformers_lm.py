"""transformers' Reformer on our task.

Left to its defaults it attends fully to sequences of one chunk, pads where it is not training,
chooses its own number of buckets at the first sequence it sees, and caches every layer's
activations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from reformer_bench.model.attention.lsh import bucket_factors
from reformer_bench.peers.adapter import PeerModel, hashing_comparison
from reformer_bench.peers.reformer_pytorch_lm import near_square
from reformer_bench.schema.model import Attention, Positions


class TransformersLM(PeerModel):
    """A ReformerModelWithLMHead of a causal config, or a ReformerForMaskedLM of another."""

    library = "transformers"

    def check_length(self) -> None:
        """Allow whole chunks only, and more than one of them."""
        config = self.config
        chunks = {
            config.local_chunk_length if kind is Attention.LOCAL else config.chunk_length
            for kind in map(config.kind, range(config.n_layers))
        }
        step = math.lcm(*chunks)
        if self.length % step:
            raise ValueError(
                f"transformers needs a length that is a multiple of its chunks, {step}, not "
                f"{self.length}"
            )
        if self.length <= max(chunks):
            raise ValueError(
                f"transformers attends fully to length {self.length}, which is one chunk of "
                f"{max(chunks)}: take more"
            )
        for field in ("ff_chunks", "loss_chunks"):
            n_chunks = getattr(config, field)
            if self.length % n_chunks:
                raise ValueError(
                    f"transformers needs {field} = {n_chunks} to divide the length, {self.length}"
                )

    def check_switches(self) -> None:
        """Allow positions of a table only."""
        if self.config.positions is Positions.NONE:
            raise ValueError("transformers cannot do positions = 'none', only 'axial' or 'learned'")

    def build(self) -> nn.Module:
        """Build its model, from random weights."""
        from transformers import ReformerConfig, ReformerForMaskedLM, ReformerModelWithLMHead

        kind = ReformerModelWithLMHead if self.config.causal else ReformerForMaskedLM
        model = kind(ReformerConfig(**self.arguments))
        head = model.lm_head
        if head.decoder.bias is not None:
            # From transformers 5.24 on the head has a second bias, which is never added.
            head.bias = head.decoder.bias
        return cast(nn.Module, model)

    def pinned(self) -> dict[str, Any]:
        """Return the arguments of its ReformerConfig."""
        config = self.config
        widths = [width for _, width in config.position_tables()]
        axial = config.positions is Positions.AXIAL
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "num_attention_heads": config.n_heads,
            "attention_head_size": config.head_width,
            "feed_forward_size": config.d_ff,
            "hidden_act": config.activation,
            "attn_layers": [str(config.kind(i)) for i in range(config.n_layers)],
            "is_decoder": config.causal,
            "num_hashes": config.n_hashes,
            "num_buckets": self._buckets(),
            "hash_seed": config.hash_seed,
            "lsh_attn_chunk_length": config.chunk_length,
            "lsh_num_chunks_before": 1,
            "lsh_num_chunks_after": 0,
            "local_attn_chunk_length": config.local_chunk_length,
            "local_num_chunks_before": 1,
            "local_num_chunks_after": 0,
            "chunk_size_feed_forward": _chunk_size(self.length, config.ff_chunks),
            "chunk_size_lm_head": _chunk_size(self.length, config.loss_chunks),
            "layer_norm_eps": config.norm_epsilon,
            "hidden_dropout_prob": config.dropout,
            "lsh_attention_probs_dropout_prob": 0.0,
            "local_attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": self.length,
            "axial_pos_embds": axial,
            "axial_pos_shape": list(near_square(self.length)),
            "axial_pos_embds_dim": widths if axial else [1, config.d_model - 1],
            "tie_word_embeddings": False,
            "use_cache": False,
        }

    def _buckets(self) -> int | list[int]:
        """Return our number of buckets, since None would let the first sequence decide."""
        config = self.config
        factors = bucket_factors(config.n_buckets, self.length, config.chunk_length)
        if not factors:
            raise ValueError("transformers needs an even n_buckets, not 1")
        return factors[0] if len(factors) == 1 else list(factors)

    def comparison(self) -> Iterable[tuple[bool, str]]:
        """Yield its own choices, each with whether the config says the same."""
        config = self.config
        rows = near_square(self.length)
        asked = tuple(rows for rows, _ in config.position_tables())
        shared = config.shared_qk and Attention.LOCAL in config.attention
        return (
            (config.shared_qk_scale == "none", "scores of shared queries and keys not divided"),
            (not shared, "local layers have keys of their own"),
            *hashing_comparison(config),
            (config.merge_streams == "concat", "at the end both streams, not their mean"),
            (config.dropout == 0, "dropout inside the feed-forward layer as well"),
            (
                config.positions is not Positions.AXIAL or rows == asked,
                f"axial tables of {rows[0]} and {rows[1]} rows, for this length only",
            ),
            (
                config.positions is not Positions.LEARNED or self.length == config.max_length,
                "a table of positions for this length only",
            ),
        )

    def logits(self, tokens_BL: Tensor) -> Tensor:
        """Return the logits [B, L, V] of its model."""
        return cast(Tensor, self.peer(input_ids=tokens_BL).logits)


def _chunk_size(length: int, n_chunks: int) -> int:
    """Return how many tokens a chunk has; 0 is its word for one chunk."""
    return 0 if n_chunks == 1 else length // n_chunks
