"""A planted leak: a model that keeps one more activation tensor than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.feed_forward import FeedForwardSublayer
from reformer_bench.run import entry
from reformer_bench.run.executor import WorkOrder
from reformer_bench.schema.case import Case
from reformer_bench.schema.record import Record


class _Keep(torch.autograd.Function):
    """y as it is, with another tensor kept until its backward pass."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return dy, None


@contextmanager
def planted() -> Iterator[None]:
    """The first layer's feed-forward keeps a copy of its input, while the block runs."""
    original = FeedForwardSublayer.forward

    def leaking(self: FeedForwardSublayer, x_BLM: Tensor, step: Any) -> Tensor:
        y_BLM = original(self, x_BLM, step)
        return _Keep.apply(y_BLM, x_BLM.detach().clone()) if self.layer == 0 else y_BLM

    FeedForwardSublayer.forward = leaking  # type: ignore[method-assign]
    try:
        yield
    finally:
        FeedForwardSublayer.forward = original  # type: ignore[method-assign]


def leak_bytes(case: Case) -> int:
    """How much the planted leak keeps."""
    return 4 * case.batch * case.length * case.model.d_model


def measure(order: WorkOrder, matmul_flops_per_second: float | None) -> Record:
    """What a worker runs, with the leak in the model."""
    with planted():
        return entry.measure(order, matmul_flops_per_second)
