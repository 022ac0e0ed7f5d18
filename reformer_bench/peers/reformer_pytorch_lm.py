"""reformer-pytorch's ReformerLM on our task.

Left to its defaults it may attend fully to short sequences, keep activations, replace positions by
rotary ones, or share one layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from reformer_bench.model.attention.lsh import bucket_factors
from reformer_bench.peers.adapter import PeerModel, hashing_comparison
from reformer_bench.schema.model import Attention, Positions

_NORM_EPSILON = 1e-5


class ReformerPytorchLM(PeerModel):
    """A ReformerLM of lucidrains' reformer-pytorch, built for one length."""

    library = "reformer-pytorch"

    def check_length(self) -> None:
        """Allow whole pairs of chunks only; its own check is an assertion amid a step."""
        step = 2 * self.config.chunk_length
        if self.length % step:
            raise ValueError(
                f"reformer-pytorch needs a length that is a multiple of 2 · chunk_length = {step}, "
                f"not {self.length}"
            )

    def check_switches(self) -> None:
        """Allow what its model has: LSH layers only, positions of a table, whole multiples of the
        width.
        """
        config = self.config
        if {config.kind(i) for i in range(config.n_layers)} != {Attention.LSH}:
            raise ValueError("reformer-pytorch has LSH layers only: set attention = 'lsh'")
        if config.positions is Positions.NONE:
            raise ValueError(
                "reformer-pytorch turns positions = 'none' into rotary ones: set 'axial' or "
                "'learned'"
            )
        if config.d_ff % config.d_model:
            raise ValueError(
                f"reformer-pytorch needs d_ff to be a multiple of d_model = {config.d_model}, "
                f"not {config.d_ff}"
            )

    def build(self) -> nn.Module:
        """Build its ReformerLM."""
        from reformer_pytorch import ReformerLM

        activation = nn.ReLU if self.config.activation == "relu" else nn.GELU
        return cast(nn.Module, ReformerLM(ff_activation=activation, **self.arguments))

    def pinned(self) -> dict[str, Any]:
        """Return the arguments of its ReformerLM, apart from the activation."""
        config = self.config
        return {
            "num_tokens": config.vocab_size,
            "dim": config.d_model,
            "depth": config.n_layers,
            "max_seq_len": self.length,
            "heads": config.n_heads,
            "dim_head": config.head_width,
            "bucket_size": config.chunk_length,
            "n_hashes": config.n_hashes,
            "ff_chunks": config.ff_chunks,
            "attn_chunks": 1,
            "ff_mult": config.d_ff // config.d_model,
            "causal": config.causal,
            "ff_dropout": config.dropout,
            "lsh_dropout": 0.0,
            "post_attn_dropout": 0.0,
            "layer_dropout": 0.0,
            # Zero: neither full attention nor stored activations at any length.
            "full_attn_thres": 0,
            "reverse_thres": 0,
            "use_full_attn": False,
            "n_local_attn_heads": 0,
            "random_rotations_per_head": True,
            "weight_tie": False,
            "weight_tie_embedding": False,
            "use_scale_norm": False,
            "use_rezero": False,
            "one_value_head": False,
            "num_mem_kv": 0,
            "pkm_layers": (),
            "absolute_position_emb": config.positions is Positions.LEARNED,
            "fixed_position_emb": False,
            "axial_position_emb": config.positions is Positions.AXIAL,
            "axial_position_shape": near_square(self.length),
        }

    def comparison(self) -> Iterable[tuple[bool, str]]:
        """Yield its own choices, each with whether the config says the same."""
        config = self.config
        ours = bucket_factors(config.n_buckets, self.length, config.chunk_length)
        theirs = self.length // config.chunk_length
        tables = near_square(self.length)
        return (
            (ours == (theirs,), f"{theirs} buckets in one hash, not {_product_words(ours)}"),
            (config.shared_qk_scale == "sqrt", "scores divided by √d_head"),
            *hashing_comparison(config),
            (config.merge_streams == "mean", "at the end the streams' mean, not both side by side"),
            (config.loss_chunks == 1, "logits in one piece"),
            (config.norm_epsilon == _NORM_EPSILON, f"norm epsilon {_NORM_EPSILON}"),
            (config.hash_seed is None, "rotations drawn anew each step"),
            (config.dropout == 0, "dropout inside the feed-forward layer only"),
            (
                config.positions is not Positions.AXIAL,
                f"axial tables of {tables[0]} and {tables[1]} full-width rows, added",
            ),
            (False, "a bias in the attention's output projection"),
        )

    def logits(self, tokens_BL: Tensor) -> Tensor:
        """Return the logits [B, L, V] of its ReformerLM."""
        return cast(Tensor, self.peer(tokens_BL))


def near_square(length: int) -> tuple[int, int]:
    """Return the two factors of a length that are nearest to each other, the smaller first."""
    first = next(f for f in range(math.isqrt(length), 0, -1) if length % f == 0)
    return first, length // first


def _product_words(factors: tuple[int, ...]) -> str:
    total = math.prod(factors)
    return str(total) if len(factors) < 2 else f"{total} as {' × '.join(map(str, factors))}"
