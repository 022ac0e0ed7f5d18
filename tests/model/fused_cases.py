"""What the fused programs of rows give in Triton's interpreter, beside the plain paths.

``python -m tests.model.fused_cases NAME`` prints ``agree`` or fails. The interpreter is chosen when
the programs are defined, by TRITON_INTERPRET=1, so it needs a process of its own.
"""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

from reformer_bench.model import ReformerLM, attention_layer
from reformer_bench.model.fused import (
    ColumnSums,
    activate_backward_,
    add_column_sums,
    pack_weights,
    sum_columns,
)
from reformer_bench.model.norm import (
    normalise,
    normalise_backward,
    normalise_streams,
    normalise_streams_backward,
)
from reformer_bench.model.stack.streams import FixedStream, RangeWatch
from reformer_bench.schema.standing import standing_for
from tests.models import small_config

UNIT = 2.0**20
# NumPy, in which the interpreter computes, has no bfloat16: the other half stands in for it.
HALF = torch.float16


def close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def norm_params(width: int) -> dict[str, Tensor]:
    return {"norm.weight": torch.rand(width) + 0.5, "norm.bias": torch.randn(width)}


def norm() -> None:
    """Rows of floats and of integers, of one stream and of two, widths that fill no block."""
    for rows, width, count, fixed in itertools.product((1, 70), (24, 64), (1, 2), (False, True)):
        xs = [torch.randn(rows, width) * 3 + 1 for _ in range(count)]
        scale = UNIT if fixed else 1.0
        stored = [(x * UNIT).round().to(torch.int32) if fixed else x for x in xs]
        params = norm_params(width * count)
        merged = torch.cat([x.to(torch.float32) for x in stored], -1)
        plain = normalise(params, merged, 1e-5, scale)
        for dtype, tolerance in ((torch.float32, 2e-5), (HALF, 4e-3)):
            found = normalise_streams(params, stored, 1e-5, scale, dtype)
            assert found.h_PW.dtype == dtype
            close(found.h_PW.float(), plain.h_PM, tolerance)
        dh = torch.randn(rows, width * count)
        wanted_grads = {name: torch.ones_like(x) for name, x in params.items()}
        wanted = normalise_backward(params, wanted_grads, dh, plain).split(width, -1)
        for add, fresh in ((True, False), (False, True)):
            saved = normalise_streams(params, stored, 1e-5, scale, torch.float32)
            grads = {name: torch.ones_like(x) for name, x in params.items()}
            into = [torch.full_like(x, 2.0) for x in xs]
            sums = normalise_streams_backward(params, grads, dh, saved, into, add=add)
            add_column_sums(sums, fresh=fresh)
            for dx, want in zip(into, wanted, strict=True):
                close(dx, want + 2.0 if add else want)
            for name, grad in grads.items():
                close(grad + 1.0 if fresh else grad, wanted_grads[name], 1e-4)


def units() -> None:
    """Additions are those of the plain path to the bit, ties and large numbers too, and are undone
    to the bit; the largest magnitude is noted."""
    for rows, width, dtype in itertools.product((1, 37), (8, 130), (torch.float32, HALF)):
        start = torch.randn(rows, width)
        y = (torch.randn(rows, width) * 50).to(dtype)
        # Halves of a unit are ties; 2000 is 2²³ units and more, where only whole ones are left.
        edge = torch.tensor([0.5, -0.5, 1.5, 2.5, -1.5, 3.0]) / UNIT
        if dtype is torch.float32:
            y.flatten()[:6] = edge
            y.flatten()[6:8] = torch.tensor([8.0 - 0.5 / UNIT, -300.25])
        plain_watch, watch = (RangeWatch.over(["a", "b"], start) for _ in range(2))
        plain = FixedStream.of(start, plain_watch)
        plain.add_(slice(0, rows), y.clone(), 1)
        with standing_for("cuda"):
            stream = FixedStream.of(start, watch)
            first = stream.tensor.clone()
            watch.next_place()
            stream.add_(slice(0, rows), y.clone(), 1)
            watch.next_place()
            assert torch.equal(stream.tensor, plain.tensor)
            assert watch.reached_units == plain_watch.reached_units
            assert watch.n_in_range == 2
            stream.unwatched().add_(slice(0, rows), y.clone(), -1)
        assert torch.equal(stream.tensor, first)


def watch() -> None:
    """A NaN stays noted for good, whatever comes after; so does what is out of range."""
    for bad, words in ((math.nan, "NaN"), (math.inf, "beyond"), (1500.0, "beyond")):
        like = torch.zeros(3, 5)
        seen = RangeWatch.over(["first", "second", "third"], like)
        with standing_for("cuda"):
            stream = FixedStream.of(like, seen)
            seen.next_place()
            y = torch.ones(3, 5)
            y[1, 2] = bad
            for numbers in (y, torch.ones(3, 5)):
                stream.add_(slice(0, 3), numbers, 1)
                seen.next_place()
            assert torch.isnan(seen.guard())
            with pytest.raises(OverflowError, match=f"^second put .*{words}"):
                seen.check()


def columns() -> None:
    """Sums of columns, and gradients of activations with theirs."""
    for rows, width in ((1, 5), (75, 1100)):
        x, u = torch.randn(rows, width), torch.randn(rows, width) * 2
        for dtype in (torch.float32, HALF):
            into = torch.ones(width)
            narrow, sums = sum_columns(x, into, dtype)
            add_column_sums([sums], fresh=False)
            assert torch.equal(narrow, x.to(dtype))
            close(into, x.sum(0) + 1, 1e-4)
        for name, wanted in (
            ("gelu", torch.ops.aten.gelu_backward(x, u)),
            ("relu", x.masked_fill(u <= 0, 0)),
        ):
            da, into = x.clone(), torch.ones(width)
            add_column_sums([activate_backward_(da, u, into, name)], fresh=True)
            close(da, wanted)
            close(into, da.sum(0), 1e-4)
    # Four kinds of different widths at once, one of them a view with gaps.
    wide = torch.randn(40, 2, 70)
    parts = [torch.randn(40, 3), torch.randn(40, 130), *wide.unbind(1)]
    into = [torch.ones(p.shape[1]) for p in parts]
    add_column_sums([ColumnSums(*pair) for pair in zip(parts, into, strict=True)], fresh=False)
    for part, found in zip(parts, into, strict=True):
        close(found, part.sum(0) + 1)


def pack() -> None:
    """Weights of a group of heads are rows of each projection side by side, and columns."""
    heads, d_head, width = 6, 4, 20
    for count, features in itertools.product((2, 3), (slice(0, 24), slice(8, 16))):
        projections = [torch.randn(heads * d_head, width) for _ in range(count)]
        output = torch.randn(width, heads * d_head)
        for dtype in (torch.float32, HALF):
            packed, narrow = pack_weights(projections, output, features, d_head, dtype)
            rows = [p[features].unflatten(0, (-1, d_head)) for p in projections]
            assert torch.equal(packed, torch.stack(rows, 1).flatten(0, 2).to(dtype))
            assert torch.equal(narrow, output[:, features].to(dtype))


def run_model(fields: dict[str, object], *, fused: bool, padded: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = ReformerLM(small_config(**fields))
    undone: list[Tensor] = []
    model.on_reconstructed = lambda streams: undone.extend(s.values(slice(None)) for s in streams)
    tokens = torch.randint(31, (2, 45), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 45, dtype=torch.bool)
    valid[1, 30:] = False
    with standing_for("cuda" if fused else "cpu"):
        torch.manual_seed(2)
        loss = model.loss(tokens, tokens.roll(-1, 1), valid if padded else None)
        loss.backward()
        model.check_streams()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if undone and fields.get("streams") != "float":
        embedded = FixedStream.of(model.embedding(tokens).detach().flatten(0, 1))
        for stream in undone:
            assert torch.equal(stream, embedded.values(slice(None)))
    return {"loss": loss.detach(), **found}


def model() -> None:
    """A model's loss and gradients; the streams are undone to the embedding they began with."""
    base = {
        "dtype": "float32", "d_model": 48, "n_heads": 2, "d_head": 16, "d_ff": 40, "n_layers": 2,
        "chunk_length": 16, "local_chunk_length": 16, "n_hashes": 2, "n_buckets": 2,
        "lsh_kernel": "triton", "attention": "lsh,local",
    }  # fmt: skip
    for fields, padded in (
        ({"ff_chunks": 3, "loss_chunks": 3}, False),
        ({"ff_chunks": 60, "loss_chunks": 60, "head_groups": 2, "activation": "relu"}, True),
        ({"streams": "float", "dropout": 0.2, "merge_streams": "mean", "loss_chunks": 2}, False),
        ({"residual": "checkpointed", "ff_chunks": 3, "loss_chunks": 3}, False),
    ):
        wanted = run_model({**base, **fields}, fused=False, padded=padded)
        found = run_model({**base, **fields}, fused=True, padded=padded)
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            torch.testing.assert_close(
                value, wanted[name], rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


def gaps() -> None:
    """One sublayer on input whose rows have gaps, and a gradient that is one number, expanded."""
    fields = {"dtype": "float32", "d_head": 16, "n_heads": 2, "chunk_length": 16, "n_buckets": 2}
    config = small_config(**fields, lsh_kernel="triton", residual="checkpointed", d_model=24)
    torch.manual_seed(0)
    layer = attention_layer(config)
    wide = torch.randn(2, 20, 40)
    results = []
    for kind in ("cpu", "cuda"):
        x = wide.clone().requires_grad_()
        with standing_for(kind):
            layer(x[..., 8:32]).sum().backward()
        assert x.grad is not None
        results.append(x.grad)
    close(*results, tolerance=1e-4)


CASES = {f.__name__: f for f in (norm, units, watch, columns, pack, model, gaps)}


if __name__ == "__main__":
    torch.manual_seed(0)
    CASES[sys.argv[1]]()
    print("agree")
