"""Plain quadratic references, written from the paper's equations, for one sequence or a stack."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from reformer_bench.model.attention.common import SELF_PENALTY, unit_keys
from reformer_bench.model.sublayer import PassContext


def full_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    exclude_self: bool,
    scale: float,
    valid: Tensor | None = None,
) -> Tensor:
    """softmax(q kᵀ · scale) v of one head, [L, D]; what isn't seen has weight zero."""
    length = q.shape[0]
    seen = torch.ones(length, length, dtype=torch.float64)
    if causal:
        seen = seen.tril()
    if valid is not None:
        seen = seen * valid[None, :]
    scores = (q @ k.T) * scale
    if exclude_self:
        scores = scores - SELF_PENALTY * torch.eye(length, dtype=scores.dtype)
    return weighted(scores, seen, v)


def weighted(scores: Tensor, times: Tensor, v: Tensor) -> Tensor:
    """Σⱼ times·exp(score)·v / Σⱼ times·exp(score), row by row."""
    hidden = scores.masked_fill(times == 0, -math.inf)
    top = hidden.detach().amax(-1, keepdim=True).clamp(min=-1e30)
    weights = times * (hidden - top).exp()
    return (weights @ v) / weights.sum(-1, keepdim=True).clamp(min=1e-300)


def times_seen(
    buckets: Tensor,
    chunk_length: int,
    *,
    across: bool,
    ring: bool,
    valid: Tensor | None = None,
) -> Tensor:
    """[R, L, L]: in how many places of round r query i sees key j, causality aside."""
    n_rounds, length = buckets.shape
    real = torch.ones(length, dtype=torch.bool) if valid is None else valid
    n_chunks = math.ceil(length / chunk_length)
    chunk = torch.zeros(n_rounds, length, dtype=torch.int64)
    for r in range(n_rounds):
        sort_keys = zip((~real).tolist(), buckets[r].tolist(), range(length), strict=True)
        for slot, (_, _, position) in enumerate(sorted(sort_keys)):
            chunk[r, position] = slot // chunk_length
    both = lambda values: (values[..., :, None], values[..., None, :])  # noqa: E731
    chunk_i, chunk_j = both(chunk)
    bucket_i, bucket_j = both(buckets)
    real_i, real_j = both(real)
    reach = (chunk_i - chunk_j == 0) | (chunk_i - chunk_j == 1)
    times = (reach & (across | (bucket_i == bucket_j) | ~real_i)).double()
    if ring and across:
        times += (chunk_i == 0) & (chunk.roll(1, 0)[:, None, :] == n_chunks - 1)
    return times * (real_i == real_j)


def lsh_reference(
    qv: Tensor,
    buckets: Tensor,
    chunk_length: int,
    *,
    causal: bool,
    across: bool,
    once: bool,
    ring: bool,
    scale: float,
    valid: Tensor | None = None,
) -> Tensor:
    """LSH attention of one head's packed queries and values [L, 2D], buckets [R, L] given."""
    d = qv.shape[-1] // 2
    q, v = qv[:, :d], qv[:, d:]
    length = q.shape[0]
    times = times_seen(buckets, chunk_length, across=across, ring=ring, valid=valid).sum(0)
    if once:
        times = times.clamp(max=1)
    if causal:
        times = times.tril()
    scores = (q @ unit_keys(q).T) * scale - SELF_PENALTY * torch.eye(length, dtype=q.dtype)
    return weighted(scores, times, v)


def plain_reversible_loss(model, tokens: Tensor, targets: Tensor, context: PassContext) -> Tensor:
    """The reversible equations under plain autograd: every activation kept, nothing undone."""
    x1 = x2 = model.embedded(tokens, context)
    for layer in model.layers:
        x1 = x1 + layer.attention(x2, context)
        x2 = x2 + layer.feed_forward(x1, context)
    logits = model.output(model.output.merge([x1, x2]))
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
