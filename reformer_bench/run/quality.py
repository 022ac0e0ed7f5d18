"""Measures how near LSH attention comes to full attention on the same queries, keys and values.

L length, H heads, D head width, R rounds, Q queries looked at. Batch is one. *Planted* vectors come
in small clusters, so that each query has a few close neighbours which hold nearly all of its
attention; *random* vectors have none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reformer_bench.model.attention.common import AttentionSettings, hide_unseen_, unpack
from reformer_bench.model.attention.kernels import chosen_kernel
from reformer_bench.model.attention.lsh import (
    bucket_factors,
    draw_rotations,
    hash_queries,
    lsh_attention,
)
from reformer_bench.model.attention.plan import ChunkPlan, plan_chunks
from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.record import Quality

_MOST_QUERIES = 512
_MOST_HEADS = 4
_CLUSTER = 8
"""How many planted tokens are close to each other, at random places of the sequence."""
_COSINE = 0.9
"""The cosine between a planted token and the centre of its cluster."""
_QUERY_LENGTH = 12.0
"""The length ‖q‖ of a query. Keys have unit length, so that it is the temperature: at 12 a close
neighbour outweighs tens of thousands of strangers, as in a trained model that looks at a few
places."""


def lsh_quality(
    model: ModelConfig, length: int, device: torch.device, seed: int
) -> tuple[Quality, ...]:
    """Compare LSH attention of a model with full attention, on planted and on random vectors.

    Each head has vectors and rotations of its own; at most 512 queries of each are looked at, so
    that the cost of full attention grows with the length only.
    """
    with torch.no_grad():
        found = []
        for inputs, draw in (("planted", _planted), ("random", _random)):
            generator = torch.Generator().manual_seed(seed)
            heads = min(model.n_heads, _MOST_HEADS)
            qv_BLHc = draw(length, heads, model.head_width, generator).to(device)
            error, mass, n = _compare(model, qv_BLHc, seed, generator)
            found.append(
                Quality(inputs=inputs, relative_error=error, mass_caught=mass, n_queries=n)
            )
    return tuple(found)


def _random(length: int, heads: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw packed standard normal queries and values, [1, L, H, 2·D]."""
    return torch.randn(1, length, heads, 2 * width, generator=generator)


def _planted(length: int, heads: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw packed queries in clusters and standard normal values, [1, L, H, 2·D]."""
    packed = _random(length, heads, width, generator)
    n_clusters = -(-length // _CLUSTER)
    centres_KHD = _unit(torch.randn(n_clusters, heads, width, generator=generator))
    cluster_L = torch.randperm(length, generator=generator) // _CLUSTER
    noise_LHD = _unit(packed[0, :, :, :width])
    sine = (1 - _COSINE**2) ** 0.5
    near_LHD = _COSINE * centres_KHD[cluster_L] + sine * noise_LHD
    packed[0, :, :, :width] = _QUERY_LENGTH * _unit(near_LHD)
    return packed


def _unit(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length


def _compare(
    model: ModelConfig, qv_BLHc: Tensor, seed: int, generator: torch.Generator
) -> tuple[float, float, int]:
    """Return the relative error, the mass caught, and how many queries were looked at."""
    settings = AttentionSettings.of(model, 0)
    _, length, heads, _ = qv_BLHc.shape
    device, width = qv_BLHc.device, settings.d_head
    factors = bucket_factors(model.n_buckets, length, model.chunk_length)
    rotations = draw_rotations(heads, width, model.n_hashes, factors, seed, device, qv_BLHc.dtype)
    buckets = hash_queries(qv_BLHc, rotations, factors, width)
    _, kernel = chosen_kernel(settings, device, qv_BLHc.dtype)
    out_LHD = lsh_attention(qv_BLHc, buckets, settings, None, kernel)[0]
    plan = plan_chunks(
        buckets,
        settings.chunk_length,
        across_buckets=settings.attend_across_buckets,
        ring=settings.ring,
    )
    chosen_Q = torch.randperm(length, generator=generator)[:_MOST_QUERIES].sort()[0].to(device)
    off = whole = mass = 0.0
    for head in range(heads):
        weights_QL, full_QD = _full(qv_BLHc[:, :, head : head + 1], settings, chosen_Q)
        seen_QL = seen_keys(plan, settings, head, chosen_Q)
        off += float((out_LHD[chosen_Q, head] - full_QD).square().sum())
        whole += float(full_QD.square().sum())
        mass += float((weights_QL * seen_QL).sum(-1).mean())
    return (off / whole) ** 0.5, mass / heads, heads * len(chosen_Q)


def _full(qv_BL1c: Tensor, settings: AttentionSettings, chosen_Q: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights [Q, L] and output [Q, D] of full attention for some queries of one head."""
    q, k, v = unpack(qv_BL1c, settings)
    weights, outputs = [], []
    for position in chosen_Q.tolist():
        scores = (q[:, :, position : position + 1] * settings.scale) @ k.transpose(-1, -2)
        row = hide_unseen_(scores, settings, None, position).softmax(-1)[0, 0]
        weights.append(row)
        outputs.append(row @ v[0, 0])
    return torch.cat(weights), torch.cat(outputs)


def seen_keys(plan: ChunkPlan, settings: AttentionSettings, head: int, chosen_Q: Tensor) -> Tensor:
    """Say which keys some queries of a head see in any round, [Q, L] bool, apart from causality."""
    chunk_RL = plan.chunk_of_position_NRL()[head]
    code_RL = plan.code_of_position_NRL()[head]
    seen = torch.zeros(len(chosen_Q), plan.length, dtype=torch.bool, device=chunk_RL.device)
    for r in range(plan.n_rounds):
        distance = chunk_RL[r, chosen_Q][:, None] - chunk_RL[r][None]
        same = code_RL[r, chosen_Q][:, None] == code_RL[r][None]
        seen |= same & (distance >= 0) & (distance <= 1)
        if settings.ring and settings.attend_across_buckets:
            before = chunk_RL[(r - 1) % plan.n_rounds] == plan.n_chunks - 1
            seen |= (chunk_RL[r, chosen_Q] == 0)[:, None] & before[None]
    return seen
