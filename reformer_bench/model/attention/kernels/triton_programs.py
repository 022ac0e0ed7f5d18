"""Triton programs of LSH attention: hashing, the sorted order, attention inside chunks, and sums
over rounds. Each is one launch for all heads and all rounds.

A program of attention owns one tile of one chunk in one round of one sequence. It reads its rows
through the sorted order, so no sorted copy exists, and no score leaves the chip. Each round writes
rows of its own, which a second launch combines: nothing is added atomically, so results don't
depend on the order in which programs run.

C slots of a chunk, T slots of a tile of it, D head width, all powers of two, at least 16; N
sequences, R rounds, P rows, packed as in ``chunked``: query and value (shared QK), or query, key
and value. ``position`` and ``code`` are those of a ChunkPlan, [N, R, S] with S slots of a round,
int32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _strongest(q, rotations, where, HALF: tl.constexpr, TILE: tl.constexpr,
               PRECISION: tl.constexpr):  # fmt: skip
    """Return argmax([qR; −qR]) of each row, int32, over HALF directions R whose features lie at
    ``where`` [D].

    A direction and its opposite are one product; ties go to the first, as in torch's argmax.
    """
    column = tl.arange(0, TILE)
    high = tl.full([q.shape[0]], float("-inf"), tl.float32)
    low = tl.full([q.shape[0]], float("inf"), tl.float32)
    at_high = tl.zeros([q.shape[0]], tl.int32)
    at_low = tl.zeros([q.shape[0]], tl.int32)
    for first in range(0, HALF, TILE):
        known = (first + column < HALF)[None, :]
        places = where[:, None] + first + column[None, :]
        rotation = tl.load(rotations + places, mask=known, other=0.0)
        y = tl.dot(q, rotation, input_precision=PRECISION)
        up = tl.where(known, y, float("-inf"))
        down = tl.where(known, -y, float("-inf"))
        top = tl.max(up, 1)
        bottom = -tl.max(down, 1)
        at_high = tl.where(top > high, first + tl.argmax(up, 1), at_high)
        at_low = tl.where(bottom < low, first + tl.argmax(down, 1), at_low)
        high = tl.maximum(high, top)
        low = tl.minimum(low, bottom)
    return tl.where(high >= -low, at_high, at_low + HALF)


@triton.jit
def hash_rounds(qkv, rotations, valid, keys, length, heads, n_directions, past,
                POSITION_BITS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
                ROUNDS: tl.constexpr, HALVES: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
                MASKED: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Write the sort key (bucket · 2^POSITION_BITS + position) of each position in each round,
    ``keys`` [N, R, L]; padding gets the bucket ``past``.

    ``rotations`` are [H, D, R, K] with K directions of all factors side by side; HALVES holds half
    of each factor. For each factor the hash is argmax([xR; −xR]) (paper, section 2).
    """
    n = tl.program_id(1)
    positions = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = positions < length
    b = n // heads
    h = n % heads
    d = tl.arange(0, D)
    rows = (b.to(tl.int64) * length + positions) * heads + h
    q = tl.load(qkv + rows[:, None] * WIDTH + d[None, :], mask=inside[:, None], other=0.0)
    real = inside
    if MASKED:
        real = tl.load(valid + b.to(tl.int64) * length + positions, mask=inside, other=0) != 0
    features = (h * D + d) * (ROUNDS * n_directions)
    for r in range(ROUNDS):
        bucket = tl.zeros([ROWS], tl.int32)
        start = 0
        radix = 1
        for factor in tl.static_range(len(HALVES)):
            where = features + r * n_directions + start
            side = _strongest(q, rotations, where, HALVES[factor], TILE, PRECISION)
            bucket += radix * side
            start += HALVES[factor]
            radix *= 2 * HALVES[factor]
        bucket = tl.where(real, bucket, past)
        key = (bucket.to(keys.dtype.element_ty) << POSITION_BITS) | positions
        into = (n.to(tl.int64) * ROUNDS + r) * length + positions
        tl.store(keys + into, key, mask=inside)


@triton.jit
def unpack_order(keys, position, code, length, n_slots, past, POSITION_BITS: tl.constexpr,
                 C: tl.constexpr, ROUNDS: tl.constexpr, RING: tl.constexpr, ACROSS: tl.constexpr,
                 PADDING_CODE: tl.constexpr, NO_SLOT: tl.constexpr, EMPTY_SLOT: tl.constexpr,
                 BLOCK: tl.constexpr):  # fmt: skip
    """Write position and code of every slot of every round, from sorted keys [N, R, L].

    Before the first chunk lies what it looks back to: nothing, or with RING the last chunk of the
    round before.
    """
    segment = tl.program_id(1)
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    of = segment
    place = slot - C
    if RING:
        r = segment % ROUNDS
        before = segment - r + (r + ROUNDS - 1) % ROUNDS
        of = tl.where(slot < C, before, segment)
        place = tl.where(slot < C, n_slots - 2 * C + slot, place)
    filled = (place >= 0) & (place < length) & (slot < n_slots)
    key = tl.load(keys + of.to(tl.int64) * length + place, mask=filled, other=0)
    bucket = (key >> POSITION_BITS).to(tl.int32)
    at = tl.where(filled, (key & ((1 << POSITION_BITS) - 1)).to(tl.int32), 0)
    what = bucket
    if ACROSS:
        what = tl.zeros([BLOCK], tl.int32)
    what = tl.where(bucket >= past, PADDING_CODE, what)
    what = tl.where(filled, what, EMPTY_SLOT)
    if RING and ACROSS:
        what = tl.where((slot < C) & (place < 0), NO_SLOT, what)
    else:
        what = tl.where(slot < C, NO_SLOT, what)
    into = segment.to(tl.int64) * n_slots + slot
    tl.store(position + into, at, mask=slot < n_slots)
    tl.store(code + into, what, mask=slot < n_slots)


@triton.jit
def inverse_lengths(qkv, factor, n_rows, D: tl.constexpr, WIDTH: tl.constexpr,
                    KEY_EPSILON: tl.constexpr,
                    ROWS: tl.constexpr):  # fmt: skip
    """Write what turns each query into its key of unit length, ``factor`` [P] float32."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, D)
    inside = row < n_rows
    q = tl.load(qkv + row[:, None] * WIDTH + d[None, :], mask=inside[:, None], other=0.0)
    wide = q.to(tl.float32)
    tl.store(factor + row, tl.rsqrt(tl.sum(wide * wide, 1) + D * KEY_EPSILON), mask=inside)


@triton.jit
def _own(n_slots, length, heads, C: tl.constexpr, TILES: tl.constexpr, ROUNDS: tl.constexpr):
    """Return what a program of attention owns: its tile, sequence and round, the row of the
    sequence's position 0, and the first slot of its chunk. Before a round's first chunk lies one
    more, which it looks back to.
    """
    j = tl.program_id(0) // TILES
    t = tl.program_id(0) % TILES
    n = tl.program_id(1)
    r = tl.program_id(2)
    first = (n // heads).to(tl.int64) * length * heads + n % heads
    chunk = (n.to(tl.int64) * ROUNDS + r) * n_slots + (j + 1) * C
    return t, n, r, first, chunk


@triton.jit
def _slots(position, code, base, heads, first, T: tl.constexpr):
    """Load the positions [T], rows [T] and codes [T] of the slots from ``base`` on."""
    slot = base + tl.arange(0, T)
    at = tl.load(position + slot)
    return at, at.to(tl.int64) * heads + first, tl.load(code + slot)


@triton.jit
def _keys(qkv, factor, rows, D: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr):
    """Load keys [C, D] of rows and what their scores are multiplied by, [C]: shared ones are
    queries, which are brought to unit length by the scores instead of by themselves.
    """
    d = tl.arange(0, D)
    if SHARED:
        k = tl.load(qkv + rows[:, None] * WIDTH + d[None, :])
        return k, tl.load(factor + rows)
    k = tl.load(qkv + rows[:, None] * WIDTH + D + d[None, :])
    return k, tl.full([rows.shape[0]], 1.0, tl.float32)


@triton.jit
def _times_seen(chunk_of, code_of, n, length, at_q, at_k, n_chunks, ROUNDS: tl.constexpr,
                RING: tl.constexpr, ACROSS: tl.constexpr):  # fmt: skip
    """Count in how many places of all rounds queries [T] see keys [T]: N_ij of the paper."""
    times = tl.zeros([at_q.shape[0], at_k.shape[0]], tl.int32)
    for r in tl.static_range(ROUNDS):
        base = (n.to(tl.int64) * ROUNDS + r) * length
        chunk_q = tl.load(chunk_of + base + at_q)
        chunk_k = tl.load(chunk_of + base + at_k)
        same = tl.load(code_of + base + at_q)[:, None] == tl.load(code_of + base + at_k)[None, :]
        distance = chunk_q[:, None] - chunk_k[None, :]
        times += (same & (distance >= 0) & (distance <= 1)).to(tl.int32)
        if RING and ACROSS:
            earlier = (n.to(tl.int64) * ROUNDS + (r + ROUNDS - 1) % ROUNDS) * length
            last = tl.load(chunk_of + earlier + at_k) == n_chunks - 1
            times += ((chunk_q == 0)[:, None] & last[None, :]).to(tl.int32)
    return times


@triton.jit
def _scores(q, k, factor_k, at_q, at_k, code_q, code_k, ahead, scale, chunk_of, code_of, n, length,
            n_chunks, CAUSAL: tl.constexpr, SHARED: tl.constexpr, BY_SLOT: tl.constexpr,
            ONCE: tl.constexpr, ROUNDS: tl.constexpr, RING: tl.constexpr, ACROSS: tl.constexpr,
            SELF_PENALTY: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Return scores [T, T] of a tile of queries and a tile of keys; −∞ where a key isn't seen.

    With BY_SLOT a later slot is a later position, and a token meets itself in its own slot only;
    ``ahead`` says how many slots the first query lies behind the first key.
    """
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (factor_k[None, :] * scale)
    seen = code_q[:, None] == code_k[None, :]
    if BY_SLOT:
        place_q = tl.arange(0, at_q.shape[0]) + ahead
        place_k = tl.arange(0, at_k.shape[0])
    else:
        place_q = at_q
        place_k = at_k
    if CAUSAL:
        seen = seen & (place_k[None, :] <= place_q[:, None])
    if SHARED:
        s = tl.where(place_k[None, :] == place_q[:, None], s - SELF_PENALTY, s)
    if ONCE:
        times = _times_seen(
            chunk_of, code_of, n, length, at_q, at_k, n_chunks, ROUNDS, RING, ACROSS
        )
        s = s - tl.log(tl.maximum(times, 1).to(tl.float32))
    return tl.where(seen, s, float("-inf"))


@triton.jit
def attend(qkv, factor, position, code, chunk_of, code_of, outs, normalisers, n_slots, n_rows,
           length, heads, scale, C: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
           WIDTH: tl.constexpr, ROUNDS: tl.constexpr, CAUSAL: tl.constexpr, SHARED: tl.constexpr,
           BY_SLOT: tl.constexpr, ONCE: tl.constexpr, RING: tl.constexpr, ACROSS: tl.constexpr,
           SELF_PENALTY: tl.constexpr, EMPTY_SLOT: tl.constexpr,
           PRECISION: tl.constexpr):  # fmt: skip
    """Write each round's output ``outs`` [R, P, D] and log-normaliser ``normalisers`` [R, P]."""
    TILES: tl.constexpr = C // T
    t, n, r, first, chunk = _own(n_slots, length, heads, C, TILES, ROUNDS)
    n_chunks = tl.num_programs(0) // TILES
    d = tl.arange(0, D)
    base = chunk + t * T
    at_q, rows, code_q = _slots(position, code, base, heads, first, T)
    q = tl.load(qkv + rows[:, None] * WIDTH + d[None, :])
    top = tl.full([T], float("-inf"), tl.float32)
    mass = tl.zeros([T], tl.float32)
    out = tl.zeros([T, D], tl.float32)
    # The own tile first: it holds the token itself, so every row has a finite maximum after it.
    # Then backwards, as far as the chunk before reaches, and last the own chunk's later tiles.
    n_earlier = t + TILES + 1
    n_tiles = n_earlier if CAUSAL and BY_SLOT else 2 * TILES
    for i in range(n_tiles):
        back = tl.where(i < n_earlier, i, i - 2 * TILES)
        at_k, rows_k, code_k = _slots(position, code, base - back * T, heads, first, T)
        k, factor_k = _keys(qkv, factor, rows_k, D, WIDTH, SHARED)
        s = _scores(q, k, factor_k, at_q, at_k, code_q, code_k, back * T, scale, chunk_of, code_of,
                    n, length, n_chunks, CAUSAL, SHARED, BY_SLOT, ONCE, ROUNDS, RING, ACROSS,
                    SELF_PENALTY, PRECISION)  # fmt: skip
        higher = tl.maximum(top, tl.max(s, 1))
        p = tl.exp(s - higher[:, None])
        shrink = tl.exp(top - higher)
        mass = mass * shrink + tl.sum(p, 1)
        v = tl.load(qkv + rows_k[:, None] * WIDTH + (WIDTH - D) + d[None, :])
        out = tl.dot(p.to(v.dtype), v, out * shrink[:, None], input_precision=PRECISION)
        top = higher

    real = code_q != EMPTY_SLOT
    into = r.to(tl.int64) * n_rows + rows
    out = (out / mass[:, None]).to(outs.dtype.element_ty)
    tl.store(outs + into[:, None] * D + d[None, :], out, mask=real[:, None])
    tl.store(normalisers + into, top + tl.log(mass), mask=real)


@triton.jit
def combine(outs, normalisers, out, normaliser, n_rows, D: tl.constexpr, ROUNDS: tl.constexpr,
            ROWS: tl.constexpr):  # fmt: skip
    """Combine the rounds' outputs by their normalisers: ``out`` [P, D], ``normaliser`` [P]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n_rows
    d = tl.arange(0, D)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    for r in tl.static_range(ROUNDS):
        top = tl.maximum(top, tl.load(normalisers + r * n_rows + row, mask=inside, other=0.0))
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, D], tl.float32)
    for r in tl.static_range(ROUNDS):
        of_round = tl.load(normalisers + r * n_rows + row, mask=inside, other=0.0)
        share = tl.exp(of_round - top)
        mass += share
        where = outs + (r * n_rows + row)[:, None] * D + d[None, :]
        part = tl.load(where, mask=inside[:, None], other=0.0)
        total += share[:, None] * part.to(tl.float32)
    total = (total / mass[:, None]).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * D + d[None, :], total, mask=inside[:, None])
    tl.store(normaliser + row, top + tl.log(mass), mask=inside)


@triton.jit
def along_outputs(dout, out, normaliser, qkv, along, reached, share, factor, n_rows,
                  D: tl.constexpr, WIDTH: tl.constexpr, SHARED: tl.constexpr,
                  KEY_EPSILON: tl.constexpr, ALONE: tl.constexpr,
                  ROWS: tl.constexpr):  # fmt: skip
    """Write rowsum(dO ∘ O), ``along`` [P] float32; with SHARED also what turns each query into its
    key, ``factor``, and for tokens that see only themselves a normaliser of ∞ in ``reached``, so
    that they contribute nothing, and 1 in ``share``, which is 0 elsewhere.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n_rows
    where = row[:, None] * D + tl.arange(0, D)[None, :]
    do = tl.load(dout + where, mask=inside[:, None], other=0.0).to(tl.float32)
    o = tl.load(out + where, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(along + row, tl.sum(do * o, 1), mask=inside)
    if SHARED:
        whole = tl.load(normaliser + row, mask=inside, other=0.0)
        alone = whole < ALONE
        tl.store(reached + row, tl.where(alone, float("inf"), whole), mask=inside)
        tl.store(share + row, alone.to(tl.float32), mask=inside)
        of_query = row[:, None] * WIDTH + tl.arange(0, D)[None, :]
        q = tl.load(qkv + of_query, mask=inside[:, None], other=0.0).to(tl.float32)
        tl.store(factor + row, tl.rsqrt(tl.sum(q * q, 1) + D * KEY_EPSILON), mask=inside)


@triton.jit
def attend_queries(qkv, factor, position, code, chunk_of, code_of, dout, along, normaliser, grads,
                   n_slots, n_rows, length, heads, scale, C: tl.constexpr, T: tl.constexpr,
                   D: tl.constexpr, WIDTH: tl.constexpr, ROUNDS: tl.constexpr,
                   CAUSAL: tl.constexpr, SHARED: tl.constexpr, BY_SLOT: tl.constexpr,
                   ONCE: tl.constexpr, RING: tl.constexpr, ACROSS: tl.constexpr,
                   SELF_PENALTY: tl.constexpr, EMPTY_SLOT: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    """Write each round's gradient of queries, ``grads`` [R, P, D], from the keys of the own chunk
    and of the one before.
    """
    TILES: tl.constexpr = C // T
    t, n, r, first, chunk = _own(n_slots, length, heads, C, TILES, ROUNDS)
    n_chunks = tl.num_programs(0) // TILES
    d = tl.arange(0, D)
    base = chunk + t * T
    at_q, rows, code_q = _slots(position, code, base, heads, first, T)
    q = tl.load(qkv + rows[:, None] * WIDTH + d[None, :])
    do = tl.load(dout + rows[:, None] * D + d[None, :])
    top = tl.load(normaliser + rows)
    along_q = tl.load(along + rows)
    dq = tl.zeros([T, D], tl.float32)
    n_earlier = t + TILES + 1
    n_tiles = n_earlier if CAUSAL and BY_SLOT else 2 * TILES
    for i in range(n_tiles):
        back = tl.where(i < n_earlier, i, i - 2 * TILES)
        at_k, rows_k, code_k = _slots(position, code, base - back * T, heads, first, T)
        k, factor_k = _keys(qkv, factor, rows_k, D, WIDTH, SHARED)
        s = _scores(q, k, factor_k, at_q, at_k, code_q, code_k, back * T, scale, chunk_of, code_of,
                    n, length, n_chunks, CAUSAL, SHARED, BY_SLOT, ONCE, ROUNDS, RING, ACROSS,
                    SELF_PENALTY, PRECISION)  # fmt: skip
        p = tl.exp(s - top[:, None])
        v = tl.load(qkv + rows_k[:, None] * WIDTH + (WIDTH - D) + d[None, :])
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - along_q[:, None]) * (factor_k[None, :] * scale)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    into = (r.to(tl.int64) * n_rows + rows)[:, None] * D + d[None, :]
    real = (code_q != EMPTY_SLOT)[:, None]
    tl.store(grads + into, dq.to(grads.dtype.element_ty), mask=real)


@triton.jit
def attend_keys(qkv, factor, position, code, chunk_of, code_of, dout, along, normaliser, grads,
                n_slots, n_rows, length, heads, scale, C: tl.constexpr, T: tl.constexpr,
                D: tl.constexpr, WIDTH: tl.constexpr, ROUNDS: tl.constexpr,
                CAUSAL: tl.constexpr, SHARED: tl.constexpr, BY_SLOT: tl.constexpr,
                ONCE: tl.constexpr, RING: tl.constexpr, ACROSS: tl.constexpr,
                SELF_PENALTY: tl.constexpr, EMPTY_SLOT: tl.constexpr,
                PRECISION: tl.constexpr):  # fmt: skip
    """Write each round's gradients of keys and values, ``grads`` [R, P, 2·D], from the queries of
    the own chunk and of the one after, which with RING of a round's last chunk is the next round's
    first. Of shared keys it is the gradient of the key of unit length.
    """
    TILES: tl.constexpr = C // T
    t, n, r, first, chunk = _own(n_slots, length, heads, C, TILES, ROUNDS)
    n_chunks = tl.num_programs(0) // TILES
    d = tl.arange(0, D)
    at_k, rows, code_k = _slots(position, code, chunk + t * T, heads, first, T)
    k, factor_k = _keys(qkv, factor, rows, D, WIDTH, SHARED)
    v = tl.load(qkv + rows[:, None] * WIDTH + (WIDTH - D) + d[None, :])
    dk = tl.zeros([T, D], tl.float32)
    dv = tl.zeros([T, D], tl.float32)
    is_last = tl.program_id(0) // TILES + 1 == n_chunks
    following = chunk + C
    end = 2 * TILES
    if RING and ACROSS:
        of_next_round = (n.to(tl.int64) * ROUNDS + (r + 1) % ROUNDS) * n_slots + C
        following = tl.where(is_last, of_next_round, following)
    else:
        end = tl.where(is_last, TILES, end)
    for i in range(t if CAUSAL and BY_SLOT else 0, end):
        from_slot = tl.where(i < TILES, chunk + i * T, following + (i - TILES) * T)
        at_q, rows_q, code_q = _slots(position, code, from_slot, heads, first, T)
        q = tl.load(qkv + rows_q[:, None] * WIDTH + d[None, :])
        s = _scores(q, k, factor_k, at_q, at_k, code_q, code_k, (i - t) * T, scale, chunk_of,
                    code_of, n, length, n_chunks, CAUSAL, SHARED, BY_SLOT, ONCE, ROUNDS, RING,
                    ACROSS, SELF_PENALTY, PRECISION)  # fmt: skip
        p = tl.exp(s - tl.load(normaliser + rows_q)[:, None])
        # An empty slot holds a copy of position 0, which must not count twice.
        p = tl.where((code_q != EMPTY_SLOT)[:, None], p, 0.0)
        do = tl.load(dout + rows_q[:, None] * D + d[None, :])
        dv = tl.dot(tl.trans(p.to(do.dtype)), do, dv, input_precision=PRECISION)
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - tl.load(along + rows_q)[:, None]) * scale
        dk = tl.dot(tl.trans(ds.to(q.dtype)), q, dk, input_precision=PRECISION)
    into = (r.to(tl.int64) * n_rows + rows)[:, None] * (2 * D) + d[None, :]
    real = (code_k != EMPTY_SLOT)[:, None]
    tl.store(grads + into, dk.to(grads.dtype.element_ty), mask=real)
    tl.store(grads + into + D, dv.to(grads.dtype.element_ty), mask=real)


@triton.jit
def sum_rounds(dqueries, dkeys_values, qkv, factor, dout, alone_share, dqkv, n_rows,
               D: tl.constexpr, WIDTH: tl.constexpr, ROUNDS: tl.constexpr, SHARED: tl.constexpr,
               ROWS: tl.constexpr):  # fmt: skip
    """Add the rounds' gradients up into ``dqkv`` [P, width], and through the unit length of shared
    keys: (dk − k (k·dk)) / ‖q‖.

    A token that sees only itself gets ``alone_share`` [P] of its output's gradient as its value's.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n_rows
    d = tl.arange(0, D)
    within = inside[:, None]
    dq = tl.zeros([ROWS, D], tl.float32)
    dk = tl.zeros([ROWS, D], tl.float32)
    dv = tl.zeros([ROWS, D], tl.float32)
    for r in tl.static_range(ROUNDS):
        at = r * n_rows + row
        dq += tl.load(dqueries + at[:, None] * D + d[None, :], mask=within, other=0.0).to(
            tl.float32
        )
        pair = dkeys_values + at[:, None] * (2 * D) + d[None, :]
        dk += tl.load(pair, mask=within, other=0.0).to(tl.float32)
        dv += tl.load(pair + D, mask=within, other=0.0).to(tl.float32)
    into = dqkv + row[:, None] * WIDTH + d[None, :]
    if SHARED:
        q = tl.load(qkv + row[:, None] * WIDTH + d[None, :], mask=within, other=0.0).to(tl.float32)
        scale = tl.load(factor + row, mask=inside, other=0.0)[:, None]
        k = q * scale
        dq += (dk - k * tl.sum(k * dk, 1)[:, None]) * scale
        share = tl.load(alone_share + row, mask=inside, other=0.0)[:, None]
        do = tl.load(dout + row[:, None] * D + d[None, :], mask=within, other=0.0)
        dv += share * do.to(tl.float32)
    else:
        tl.store(into + D, dk.to(dqkv.dtype.element_ty), mask=within)
    tl.store(into, dq.to(dqkv.dtype.element_ty), mask=within)
    tl.store(into + (WIDTH - D), dv.to(dqkv.dtype.element_ty), mask=within)
