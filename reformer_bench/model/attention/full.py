"""Full attention, softmax(QKᵀ/√d)V, with all of a group's scores in memory (paper, section 2)."""

from __future__ import annotations

from torch import Tensor

from reformer_bench.model.attention.common import AttentionSettings, hide_unseen_, unpack


def full_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Return the output [B, L, G, D] of packed queries, keys and values; [B, G, L, L] is kept for
    backward.
    """
    q, k, v = unpack(qkv_BLGc, settings)
    scores = (q * settings.scale) @ k.transpose(-1, -2)
    weights = hide_unseen_(scores, settings, valid_BL).softmax(-1)
    return (weights @ v).transpose(1, 2)
