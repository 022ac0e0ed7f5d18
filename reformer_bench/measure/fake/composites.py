"""Operators that call many others where no dispatch mode looks on: followed call by call.

PyTorch's fast path for inference runs a whole encoder layer as one operator. To a fake tensor that
is one result, though scores of attention are made and dropped inside. Here each is written down as
the calls that it makes, in the order of its source, with results dropped where the source drops
them.

B batch, L length, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def _multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow ``_native_multi_head_attention`` on [B, L, D] (transformers/attention.cpp,
    native_multi_head_attention_cpu).
    """
    qkv = _projected(query, key, value, embed_dim, qkv_weight)
    batch, length, _ = qkv.shape
    heads_BHLd = (batch, num_head, length, embed_dim // num_head)
    qkv = qkv.contiguous()
    packed = torch.empty((3, *heads_BHLd), dtype=qkv.dtype, device=qkv.device)
    del qkv
    q, k, v = (part.flatten(0, 1) for part in packed.unbind(0))
    scores = torch.bmm(q, k.transpose(1, 2)).view(batch, num_head, length, length)
    if mask is None:
        scores = _aten._softmax.out(scores, -1, False, out=scores)
    else:
        mask = mask if mask.dtype is torch.bool else mask.to(torch.bool)
        scores = _aten._masked_softmax(scores, mask, 3, mask_type)
    # The output takes the place of the queries.
    out = torch.bmm(scores.flatten(0, 1), v, out=q).view(heads_BHLd)
    weights = scores if need_weights else None
    del scores
    by_position = out.permute(0, 2, 1, 3).contiguous().view(batch * length, embed_dim)
    result = torch.addmm(proj_bias, by_position, proj_weight.t()).view(batch, length, embed_dim)
    del by_position
    if weights is None:
        return result, result.new_empty(0)
    if average_attn_weights:
        weights = weights.sum(1)
        weights.div_(num_head)
    return result, weights


def _projected(query: Tensor, key: Tensor, value: Tensor, width: int, weight: Tensor) -> Tensor:
    """Follow the projections to [B, L, 3·D] (transformers/attention.cpp, qkv_projection)."""
    if key is value and query is key:
        return query.matmul(weight.t())
    if key is value:
        of_query, of_both = weight.split([width, 2 * width])
        parts = [query.matmul(of_query.t()), key.matmul(of_both.t())]
    else:
        thirds = zip((query, key, value), weight.chunk(3), strict=True)
        parts = [x.matmul(third.t()) for x, third in thirds]
    return torch.cat(parts, 2)


def _encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """Follow ``_transformer_encoder_layer_fwd`` on [B, L, D] (transformers/transformer.cpp,
    transformer_encoder_layer_forward).
    """
    shape = (embed_dim,)
    x = src
    if norm_first:
        x = torch.layer_norm(x, shape, norm_weight_1, norm_bias_1, eps)
    projections = (qkv_weight, qkv_bias, proj_weight, proj_bias)
    x = _multi_head_attention(
        x, x, x, embed_dim, num_heads, *projections, mask, False, True, mask_type
    )[0]
    x.add_(src)
    if not norm_first:
        x = torch.layer_norm(x, shape, norm_weight_1, norm_bias_1, eps)
    before = x
    if norm_first:
        x = torch.layer_norm(x, shape, norm_weight_2, norm_bias_2, eps)
    inner = torch.addmm(ffn_bias_1, x.flatten(0, 1), ffn_weight_1.t())
    # In place, as _addmm_activation has it.
    if use_gelu:
        _aten.gelu_(inner)
    else:
        inner.relu_()
    outer = torch.addmm(ffn_bias_2, inner, ffn_weight_2.t()).view(x.shape)
    del inner
    x = outer
    x.add_(before)
    if not norm_first:
        x = torch.layer_norm(x, shape, norm_weight_2, norm_bias_2, eps)
    return x


COMPOSITES: dict[Any, Callable[..., Any]] = {
    _aten._transformer_encoder_layer_fwd.default: _encoder_layer,
    _aten._native_multi_head_attention.default: _multi_head_attention,
}
"""The operators by what follows them; of each its arguments and results."""
