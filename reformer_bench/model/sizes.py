"""How large the parts of a sublayer are on a GPU, which wants few large launches.

Parts exist to bound memory; but the peak is that of the largest part in the model, and to cut the
others finer than that saves nothing. M model width, F feed-forward width.
"""

from __future__ import annotations

import torch

from reformer_bench.schema.model import Attention, ModelConfig

_MOST_OF_STREAMS = 1.5
"""How many times the bytes of a reversible model's two streams and their gradients (float32) one
group of heads may hold of rounds that aren't added up yet, or a piece of feed-forward in all. With
as many features in all heads as M it makes one group of up to 4 rounds of bfloat16, 2 of float32.
"""
_ROWS_OF_STREAMS = 4
_GRADIENTS_OF_A_ROUND = 3
"""Of queries, keys and values."""


def head_groups_on_gpu(config: ModelConfig, layer: int) -> int:
    """Return into how few groups a layer's heads are split where the config leaves it open: as many
    as keep what rounds hold within a share of the streams. Kinds of attention with scores in memory
    keep a group for each head.
    """
    if config.head_groups is not None:
        return config.head_groups
    kind, heads = config.kind(layer), config.n_heads
    if kind in (Attention.FULL, Attention.MEMORY_EFFICIENT):
        return heads
    of_head = _rounds(config, kind) * _GRADIENTS_OF_A_ROUND * config.head_width * _itemsize(config)
    room = _room_row_bytes(config)
    return next(
        (n for n in range(1, heads) if heads % n == 0 and heads // n * of_head <= room), heads
    )


def pieces_on_gpu(config: ModelConfig, most: int, row_bytes: int) -> int:
    """Return in how few pieces, ``most`` at most, to take rows that hold ``row_bytes`` each, so
    that a piece holds no more than one group of heads in the largest attention of the model does,
    or than such a group may where the config leaves groups open.
    """
    largest = max(_attention_row_bytes(config, layer) for layer in range(config.n_layers))
    if config.head_groups is None:
        largest = max(largest, _room_row_bytes(config))
    return min(most, -(-row_bytes // largest))


def feed_forward_row_bytes(config: ModelConfig) -> int:
    """Return what feed-forward holds of a row in its backward pass: two rows of F, and the input
    and the gradient of M.
    """
    return 2 * (config.d_ff + config.d_model) * _itemsize(config)


def loss_row_bytes(config: ModelConfig) -> int:
    """Return what the loss holds of a row in its backward pass: logits, their exponentials and
    gradients in float32, and the normalised rows and their gradient.
    """
    logits = 3 * config.vocab_size * torch.float32.itemsize
    return logits + 2 * config.output_width * _itemsize(config)


def _attention_row_bytes(config: ModelConfig, layer: int) -> int:
    """Return what one group's attention holds of a row in its backward pass, at least: packed
    features and output, their gradients, and the gradients of each round.
    """
    packed = 2 if config.shares_qk(layer) else 3
    rows = 2 * packed + 2 + _GRADIENTS_OF_A_ROUND * _rounds(config, config.kind(layer))
    size = config.n_heads // head_groups_on_gpu(config, layer)
    return size * config.head_width * rows * _itemsize(config)


def _room_row_bytes(config: ModelConfig) -> int:
    """Return the share of the streams of which parts may hold as much of a row."""
    streams = _ROWS_OF_STREAMS * config.d_model * torch.float32.itemsize
    return int(_MOST_OF_STREAMS * streams)


def _rounds(config: ModelConfig, kind: Attention) -> int:
    """Return of how many rounds gradients exist beside their sum."""
    return config.n_hashes if kind is Attention.LSH else int(kind is Attention.LOCAL)


def _itemsize(config: ModelConfig) -> int:
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype.itemsize
