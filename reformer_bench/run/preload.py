"""Preload is what a fork server imports and sets up once, so that no case pays for it.

There are only meta tensors here: nothing is computed, so that no thread is started and no device is
touched.
"""

from __future__ import annotations

import torch

from reformer_bench.measure.flops import count_flops
from reformer_bench.run import worker

__all__ = ["worker"]


def _set_up() -> None:
    # Optimizers import torch's compiler (a second), and dispatch modes build its tables of rules
    # (another), both when first used.
    weight = torch.nn.Parameter(torch.empty(2, 2, device="meta"))
    torch.optim.Adam([weight])
    torch.optim.Adafactor([weight])
    count_flops(lambda: weight @ weight)


_set_up()
