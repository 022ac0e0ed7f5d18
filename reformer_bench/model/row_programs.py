"""Triton programs outside attention: normalising the rows of streams, adding to fixed-point
streams, sums over rows, and weights in the dtype that computes.

A program of sums takes every n-th row, n being how many programs there are, and writes a row of
sums of its own, which ``add_column_sums`` adds up: nothing is added atomically, so results don't
depend on the order in which programs run. The one atomic operation, a maximum, doesn't either.

P rows, M width of a stream, W width of normalised rows: M, or 2 M of two streams side by side.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows_of_streams(first, second, row, column, width, inside, SECOND: tl.constexpr):
    """Load a row of one stream, or with SECOND of two side by side, [W] float32; 0 outside."""
    x = tl.load(first + row * width + column, mask=inside & (column < width), other=0)
    x = x.to(tl.float32)
    if SECOND:
        behind = inside & (column >= width)
        y = tl.load(second + row * width + column - width, mask=behind, other=0)
        x = tl.where(column < width, x, y.to(tl.float32))
    return x


@triton.jit
def normalise_rows(first, second, weight, bias, h, mean, rstd, width, epsilon,
                   SECOND: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Write normalised rows ``h`` [P, W], and ``mean`` and ``rstd`` [P] float32; one row a
    program.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    whole = 2 * width if SECOND else width
    inside = column < whole
    x = _rows_of_streams(first, second, row, column, width, inside, SECOND)
    mu = tl.sum(x, 0) / whole
    centred = tl.where(inside, x - mu, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / whole + epsilon)
    w = tl.load(weight + column, mask=inside, other=0.0)
    b = tl.load(bias + column, mask=inside, other=0.0)
    y = centred * scale * w + b
    tl.store(h + row * whole + column, y.to(h.dtype.element_ty), mask=inside)
    tl.store(mean + row, mu)
    tl.store(rstd + row, scale)


@triton.jit
def normalise_rows_backward(dh, first, second, weight, mean, rstd, dfirst, dsecond, sums, n_rows,
                            width, factor, SECOND: tl.constexpr, ADD: tl.constexpr,
                            BLOCK: tl.constexpr):  # fmt: skip
    """Write, or with ADD add, the gradient of the rows times ``factor`` to ``dfirst`` and
    ``dsecond`` [P, M]; write this program's sums of the gradients of weight and bias, ``sums``
    [programs, 2, W] float32.
    """
    column = tl.arange(0, BLOCK)
    whole = 2 * width if SECOND else width
    inside = column < whole
    w = tl.load(weight + column, mask=inside, other=0.0)
    dweight = tl.zeros([BLOCK], tl.float32)
    dbias = tl.zeros([BLOCK], tl.float32)
    # Counted in 64 bits: rows times their width may be more than 31 hold.
    row = tl.program_id(0).to(tl.int64)
    for _ in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        x = _rows_of_streams(first, second, row, column, width, inside, SECOND)
        scale = tl.load(rstd + row)
        normal = tl.where(inside, (x - tl.load(mean + row)) * scale, 0.0)
        dy = tl.load(dh + row * whole + column, mask=inside, other=0.0).to(tl.float32)
        dweight += dy * normal
        dbias += dy
        dnormal = dy * w
        along = tl.sum(dnormal * normal, 0) / whole
        dx = (dnormal - tl.sum(dnormal, 0) / whole - normal * along) * (scale * factor)
        of_first = inside & (column < width)
        into = dfirst + row * width + column
        if ADD:
            dx_first = dx + tl.load(into, mask=of_first, other=0.0)
        else:
            dx_first = dx
        tl.store(into, dx_first, mask=of_first)
        if SECOND:
            of_second = inside & (column >= width)
            into = dsecond + row * width + column - width
            dx_second = dx
            if ADD:
                dx_second += tl.load(into, mask=of_second, other=0.0)
            tl.store(into, dx_second, mask=of_second)
        row += tl.num_programs(0)
    into = sums + tl.program_id(0).to(tl.int64) * (2 * whole) + column
    tl.store(into, dweight, mask=inside)
    tl.store(into + whole, dbias, mask=inside)


@triton.jit
def _add_up(sums, into, step, width, block, n_parts, FRESH: tl.constexpr, PARTS: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    """Add one block of columns up over the parts."""
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    part = tl.arange(0, PARTS)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n_parts, PARTS):
        places = (start + part)[:, None] * step + column[None, :]
        known = (start + part < n_parts)[:, None] & inside[None, :]
        total += tl.sum(tl.load(sums + places, mask=known, other=0.0), 0)
    if not FRESH:
        total += tl.load(into + column, mask=inside, other=0.0)
    tl.store(into + column, total, mask=inside)


@triton.jit
def add_column_sums(sums_1, sums_2, sums_3, sums_4, into_1, into_2, into_3, into_4, step_1, step_2,
                    step_3, step_4, width_1, width_2, width_3, width_4, n_parts,
                    FRESH: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Add up to four kinds of sums [parts, W], a step apart, up over the parts, each into a tensor
    [W], or with FRESH over what is there. A width of 0 stands for none.
    """
    block = tl.program_id(0)
    end_1 = tl.cdiv(width_1, BLOCK)
    end_2 = end_1 + tl.cdiv(width_2, BLOCK)
    end_3 = end_2 + tl.cdiv(width_3, BLOCK)
    if block < end_1:
        _add_up(sums_1, into_1, step_1, width_1, block, n_parts, FRESH, PARTS, BLOCK)
    elif block < end_2:
        _add_up(sums_2, into_2, step_2, width_2, block - end_1, n_parts, FRESH, PARTS, BLOCK)
    elif block < end_3:
        _add_up(sums_3, into_3, step_3, width_3, block - end_2, n_parts, FRESH, PARTS, BLOCK)
    else:
        _add_up(sums_4, into_4, step_4, width_4, block - end_3, n_parts, FRESH, PARTS, BLOCK)


@triton.jit
def sum_columns(x, narrow, sums, n_rows, width, COPY: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """Write this program's sums of rows of ``x`` [P, W], ``sums`` [programs, W] float32; with COPY
    also the rows in the dtype of ``narrow`` [P, W].
    """
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros([BLOCK], tl.float32)
    row = tl.program_id(0).to(tl.int64)
    for _ in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        where = row * width + column
        rows = tl.load(x + where, mask=inside, other=0.0)
        total += rows.to(tl.float32)
        if COPY:
            tl.store(narrow + where, rows.to(narrow.dtype.element_ty), mask=inside)
        row += tl.num_programs(0)
    into = sums + tl.program_id(0).to(tl.int64) * width + column
    tl.store(into, total, mask=inside)


@triton.jit
def activate_backward(da, u, sums, n_rows, width, GELU: tl.constexpr,
                      BLOCK: tl.constexpr):  # fmt: skip
    """Write the gradient before an activation, given that behind it, over ``da`` [P, W], and this
    program's sums of its rows, ``sums`` [programs, W] float32.

    GELU is x Φ(x), whose derivative is Φ(x) + x φ(x); the other activation is ReLU.
    """
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros([BLOCK], tl.float32)
    row = tl.program_id(0).to(tl.int64)
    for _ in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        where = row * width + column
        x = tl.load(u + where, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(da + where, mask=inside, other=0.0).to(tl.float32)
        if GELU:
            below = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
            density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
            grad = grad * (below + x * density)
        else:
            grad = tl.where(x <= 0, 0.0, grad)
        rounded = grad.to(da.dtype.element_ty)
        tl.store(da + where, rounded, mask=inside)
        total += rounded.to(tl.float32)
        row += tl.num_programs(0)
    into = sums + tl.program_id(0).to(tl.int64) * width + column
    tl.store(into, total, mask=inside)


@triton.jit
def _bits(magnitudes):
    """Return what orders magnitudes as integers: the bits of floats that aren't negative. A NaN is
    above everything.
    """
    return tl.max(magnitudes.to(tl.int32, bitcast=True), 0)


@triton.jit
def add_units(stream, y, reached, n_numbers, units_of_one, SIGN: tl.constexpr, WATCH: tl.constexpr,
              OPEN: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Add ±y, rounded to whole units (ties to even), to a fixed-point stream, flat int32; with OPEN
    write it over what is there.

    With WATCH the largest magnitude in units, of what is added and of the sums, is kept in
    ``reached``, a float32 seen as int32.
    """
    where = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = where < n_numbers
    units = tl.load(y + where, mask=inside, other=0.0).to(tl.float32) * units_of_one
    # Beyond 2²³ float32 has whole numbers only; below, that much added and taken away rounds.
    whole = tl.where(units < 0, -8388608.0, 8388608.0)
    units = tl.where(tl.abs(units) < 8388608.0, (units + whole) - whole, units)
    if SIGN < 0:
        total = -units.to(tl.int32)
    else:
        total = units.to(tl.int32)
    if not OPEN:
        total += tl.load(stream + where, mask=inside, other=0)
    tl.store(stream + where, total, mask=inside)
    if WATCH:
        of_sums = tl.where(inside, tl.abs(total.to(tl.float32)), 0.0)
        highest = tl.maximum(_bits(tl.abs(units)), _bits(of_sums))
        tl.atomic_max(reached, highest)


@triton.jit
def count_in_range(reached, n_in_range, limit):
    """Add 1 to ``n_in_range`` where ``reached``, a float32, is below a limit; a NaN isn't."""
    within = tl.load(reached) < limit
    tl.store(n_in_range, tl.load(n_in_range) + within.to(tl.int64))


@triton.jit
def pack_weights(first, second, third, output, packed, narrow, first_feature, n_packed, width,
                 n_features, of_group, D: tl.constexpr, N: tl.constexpr,
                 BLOCK: tl.constexpr):  # fmt: skip
    """Write a group's rows of N projections, each head's side by side, ``packed`` [G, N, D, M], and
    its columns of the output projection, ``narrow`` [M, G·D], in their dtype; one row a program.

    The projections are [H·D, M] and the output projection [M, H·D]; H·D are ``n_features``.
    """
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    if row < n_packed:
        which = (row // D) % N
        feature = (first_feature + row // (N * D) * D + row % D).to(tl.int64)
        inside = column < width
        source = feature * width + column
        if which == 0:
            x = tl.load(first + source, mask=inside, other=0.0)
        elif which == 1:
            x = tl.load(second + source, mask=inside, other=0.0)
        else:
            x = tl.load(third + source, mask=inside, other=0.0)
        into = packed + row.to(tl.int64) * width + column
        tl.store(into, x.to(packed.dtype.element_ty), mask=inside)
    else:
        of = (row - n_packed).to(tl.int64)
        inside = column < of_group
        x = tl.load(output + of * n_features + first_feature + column, mask=inside, other=0.0)
        tl.store(narrow + of * of_group + column, x.to(narrow.dtype.element_ty), mask=inside)
