"""Full attention through PyTorch's fused kernels, which is what people use today."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from reformer_bench.model.attention.common import PADDING_PENALTY, AttentionSettings, unpack

# Fused kernels want head widths that are multiples of 8.
_EXTRA_FEATURES = 8


def sdpa_attention(
    qkv_BLGc: Tensor, settings: AttentionSettings, valid_BL: Tensor | None
) -> Tensor:
    """Return the output [B, L, G, D] of packed queries, keys and values."""
    q, k, v = unpack(qkv_BLGc, settings)
    if valid_BL is not None:
        q, k, v = _padding_as_feature(q, k, v, settings.scale, valid_BL)
    if settings.shared_qk:
        out = _without_self(q, k, v, settings.scale)
        if valid_BL is not None:
            # A token behind nothing but padding has no other target either.
            alone_BL = valid_BL.cumsum(1) - valid_BL.long() == 0
            out = torch.where(alone_BL[:, None, :, None], v, out)
    else:
        out = scaled_dot_product_attention(q, k, v, is_causal=settings.causal, scale=settings.scale)
    return out[..., : settings.d_head].transpose(1, 2)


def _without_self(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend causally to strictly earlier positions; the first sees itself, having no
    other.

    Query i + 1 over keys up to i is plain causal attention of queries 1… over keys …L−2, so no mask
    of L × L is needed to leave the diagonal out.
    """
    if q.shape[-2] == 1:
        return v
    later = scaled_dot_product_attention(
        q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], is_causal=True, scale=scale
    )
    return torch.cat([v[..., :1, :], later], dim=-2)


def _padding_as_feature(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a feature that lowers padding keys' scores, since kernels take no causal mask beside one
    of padding.
    """
    constant = torch.zeros(_EXTRA_FEATURES, dtype=q.dtype, device=q.device)
    constant[0] = 1.0
    q = torch.cat([q, constant.expand(*q.shape[:-1], _EXTRA_FEATURES)], -1)
    penalty = (~valid_BL).to(k.dtype) * (-PADDING_PENALTY / scale)
    extra = penalty[:, None, :, None] * constant
    k = torch.cat([k, extra.expand(*k.shape[:-1], _EXTRA_FEATURES)], -1)
    return q, k, pad(v, (0, _EXTRA_FEATURES))
