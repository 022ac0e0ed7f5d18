"""Triton programs for attention inside chunks: gather, scores, softmax and scatter in one.

One program owns one chunk of one sequence in one round: it reads its rows through the sorted
order, so no sorted copy exists, and no score leaves the chip. Every row of the result belongs to
exactly one program of a round, so rounds combine in place and gradients add without atomics.

C slots of a chunk, D head width, both powers of two, at least 16; rows are packed as in
``chunked``: query and value (shared QK), or query, key and value. ``position`` and ``code`` are
those of a ChunkPlan, for one round.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_keys(qkv, rows, width, D: tl.constexpr, SHARED: tl.constexpr,
               KEY_EPSILON: tl.constexpr):  # fmt: skip
    """Load keys [C, D] of rows, in the input's dtype, and what made them of queries, [C]."""
    d = tl.arange(0, D)
    if SHARED:
        q = tl.load(qkv + rows[:, None] * width + d[None, :])
        wide = q.to(tl.float32)
        factor = tl.rsqrt(tl.sum(wide * wide, 1) + D * KEY_EPSILON)
        return (wide * factor[:, None]).to(q.dtype), factor
    k = tl.load(qkv + rows[:, None] * width + D + d[None, :])
    return k, tl.full([rows.shape[0]], 1.0, tl.float32)


@triton.jit
def _scores(q, k, code_q, code_k, scale, C: tl.constexpr, OWN: tl.constexpr, CAUSAL: tl.constexpr,
            SHARED: tl.constexpr, SELF_PENALTY: tl.constexpr):  # fmt: skip
    """Return scores [C, C] of a chunk's queries and a chunk's keys; −∞ where a key isn't seen."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    seen = code_q[:, None] == code_k[None, :]
    if OWN:
        slot = tl.arange(0, C)
        if CAUSAL:
            seen = seen & (slot[None, :] <= slot[:, None])
        if SHARED:
            s = tl.where(slot[None, :] == slot[:, None], s - SELF_PENALTY, s)
    return tl.where(seen, s, float("-inf"))


@triton.jit
def forward_round(qkv, position, code, first_row, total, normaliser, n_slots, heads, width, scale,
                  C: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr, SHARED: tl.constexpr,
                  SELF_PENALTY: tl.constexpr, KEY_EPSILON: tl.constexpr,
                  EMPTY_SLOT: tl.constexpr, FIRST: tl.constexpr):  # fmt: skip
    """One round's output, combined in place with what ``total`` [P, D] and ``normaliser`` [P]
    hold of the rounds before."""
    j = tl.program_id(0)
    n = tl.program_id(1)
    slot = tl.arange(0, C)
    d = tl.arange(0, D)
    first = tl.load(first_row + n)
    own = n.to(tl.int64) * n_slots + (j + 1) * C + slot
    rows = tl.load(position + own) * heads + first
    code_q = tl.load(code + own)
    q = tl.load(qkv + rows[:, None] * width + d[None, :])
    k, _ = _load_keys(qkv, rows, width, D, SHARED, KEY_EPSILON)
    v = tl.load(qkv + rows[:, None] * width + (width - D) + d[None, :])
    # The own chunk first: it holds the token itself, so every row has a finite maximum after it.
    s = _scores(q, k, code_q, code_q, scale, C, True, CAUSAL, SHARED, SELF_PENALTY)
    top = tl.max(s, 1)
    p = tl.exp(s - top[:, None])
    mass = tl.sum(p, 1)
    out = tl.dot(p.to(v.dtype), v, input_precision="ieee")

    before = own - C
    rows_k = tl.load(position + before) * heads + first
    k, _ = _load_keys(qkv, rows_k, width, D, SHARED, KEY_EPSILON)
    v = tl.load(qkv + rows_k[:, None] * width + (width - D) + d[None, :])
    s = _scores(q, k, code_q, tl.load(code + before), scale, C, False, CAUSAL, SHARED, SELF_PENALTY)
    higher = tl.maximum(top, tl.max(s, 1))
    p = tl.exp(s - higher[:, None])
    shrink = tl.exp(top - higher)
    mass = mass * shrink + tl.sum(p, 1)
    out = out * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    out = out / mass[:, None]
    this = higher + tl.log(mass)

    real = code_q != EMPTY_SLOT
    into = total + rows[:, None] * D + d[None, :]
    if not FIRST:
        earlier = tl.load(normaliser + rows, mask=real, other=0.0)
        share = tl.sigmoid(this - earlier)
        so_far = tl.load(into, mask=real[:, None], other=0.0)
        out = so_far + share[:, None] * (out - so_far)
        high = tl.maximum(this, earlier)
        this = high + tl.log(tl.exp(this - high) + tl.exp(earlier - high))
    tl.store(into, out, mask=real[:, None])
    tl.store(normaliser + rows, this, mask=real)


@triton.jit
def _weights(s, normaliser):
    """Return each key's share of the softmax over all rounds."""
    return tl.exp(s - normaliser[:, None])


@triton.jit
def backward_round(qkv, position, code, first_row, dout, along, normaliser, dqkv, n_slots, n_chunks,
                   heads, width, scale, C: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr,
                   SHARED: tl.constexpr, SELF_PENALTY: tl.constexpr, KEY_EPSILON: tl.constexpr,
                   EMPTY_SLOT: tl.constexpr):  # fmt: skip
    """Add one round's gradient to ``dqkv`` [P, width], float32.

    ``along`` [P] is rowsum(dO ∘ O); a chunk's keys get theirs from its own queries and from the
    next chunk's, its queries from its own keys and from those of the chunk before.
    """
    j = tl.program_id(0)
    n = tl.program_id(1)
    slot = tl.arange(0, C)
    d = tl.arange(0, D)
    first = tl.load(first_row + n)
    own = n.to(tl.int64) * n_slots + (j + 1) * C + slot
    rows = tl.load(position + own) * heads + first
    code_own = tl.load(code + own)
    q = tl.load(qkv + rows[:, None] * width + d[None, :])
    k, factor = _load_keys(qkv, rows, width, D, SHARED, KEY_EPSILON)
    v = tl.load(qkv + rows[:, None] * width + (width - D) + d[None, :])
    do = tl.load(dout + rows[:, None] * D + d[None, :])

    s = _scores(q, k, code_own, code_own, scale, C, True, CAUSAL, SHARED, SELF_PENALTY)
    p = _weights(s, tl.load(normaliser + rows))
    dv = tl.dot(tl.trans(p.to(do.dtype)), do, input_precision="ieee")
    dp = tl.dot(do, tl.trans(v), input_precision="ieee")
    along_q = tl.load(along + rows)
    ds = (p * (dp - along_q[:, None]) * scale).to(q.dtype)
    dq = tl.dot(ds, k, input_precision="ieee")
    dk = tl.dot(tl.trans(ds), q, input_precision="ieee")

    before = own - C
    rows_b = tl.load(position + before) * heads + first
    k_b, _ = _load_keys(qkv, rows_b, width, D, SHARED, KEY_EPSILON)
    v_b = tl.load(qkv + rows_b[:, None] * width + (width - D) + d[None, :])
    s = _scores(
        q, k_b, code_own, tl.load(code + before), scale, C, False, CAUSAL, SHARED, SELF_PENALTY
    )
    p = _weights(s, tl.load(normaliser + rows))
    dp = tl.dot(do, tl.trans(v_b), input_precision="ieee")
    ds = (p * (dp - along_q[:, None]) * scale).to(q.dtype)
    dq += tl.dot(ds, k_b, input_precision="ieee")

    if j + 1 < n_chunks:
        after = own + C
        rows_a = tl.load(position + after) * heads + first
        q_a = tl.load(qkv + rows_a[:, None] * width + d[None, :])
        do_a = tl.load(dout + rows_a[:, None] * D + d[None, :])
        s = _scores(
            q_a, k, tl.load(code + after), code_own, scale, C, False, CAUSAL, SHARED, SELF_PENALTY
        )
        p = _weights(s, tl.load(normaliser + rows_a))
        dv += tl.dot(tl.trans(p.to(do_a.dtype)), do_a, input_precision="ieee")
        dp = tl.dot(do_a, tl.trans(v), input_precision="ieee")
        along_a = tl.load(along + rows_a)
        ds = (p * (dp - along_a[:, None]) * scale).to(q.dtype)
        dk += tl.dot(tl.trans(ds), q_a, input_precision="ieee")

    real = (code_own != EMPTY_SLOT)[:, None]
    if SHARED:
        wide = k.to(tl.float32)
        dk = (dk - wide * tl.sum(wide * dk, 1)[:, None]) * factor[:, None]
        dq += dk
    else:
        into = dqkv + rows[:, None] * width + D + d[None, :]
        tl.store(into, tl.load(into, mask=real, other=0.0) + dk, mask=real)
    into = dqkv + rows[:, None] * width + d[None, :]
    tl.store(into, tl.load(into, mask=real, other=0.0) + dq, mask=real)
    into = dqkv + rows[:, None] * width + (width - D) + d[None, :]
    tl.store(into, tl.load(into, mask=real, other=0.0) + dv, mask=real)
