"""Counts how many FLOPs a callable does, and measures how many a second the device can do."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    addmm_flop,
    baddbmm_flop,
    flop_registry,
    sdpa_backward_flop,
    sdpa_flop,
)

_aten = torch.ops.aten


def _mv_flop(a_MK: Any, _x_K: Any, *_: Any, **__: Any) -> int:
    m, k = a_MK
    return int(2 * m * k)


def _grouped_mm_flop(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """Count products of experts, whose rows each meet one expert's weights: [S, K] · [E, K, N], or
    [K, S] · [S, N] shared out among experts, or [E, S, K] · [E, K, N].
    """
    return int(2 * math.prod(a) * b[-1])


_MISSING: dict[Any, Callable[..., int]] = {
    _aten.addmm_: addmm_flop,
    _aten.baddbmm_: baddbmm_flop,
    _aten.mv: _mv_flop,
    _aten._grouped_mm: _grouped_mm_flop,
    _aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


def missing_formulas() -> dict[Any, Callable[..., int]]:
    """Return formulas, of shapes, for operators used here that torch's registry leaves out."""
    # Torch's own are wrapped to take tensors, and who is given formulas wraps them again.
    return {op: inspect.unwrap(f) for op, f in _MISSING.items() if op not in flop_registry}


class _NoModules:
    """Stands in for torch's tracker of modules, whose hooks fail in other people's reversible
    layers: their inputs claim gradients that nothing computes."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def count_flops(step: Callable[[], object]) -> int:
    """Count the FLOPs of every matrix product and attention kernel that a call of ``step`` runs.

    A multiplication and its addition are two. Recomputation counts as often as it runs. Attention
    counts as unmasked, as in torch's own counter. Element-wise work isn't counted.
    """
    counter = FlopCounterMode(display=False, custom_mapping=missing_formulas())
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        step()
    return int(counter.get_total_flops())


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the best speed of one large square matrix product on a device, in FLOP/s.

    It takes at most about 0.3 s on a CPU, and up to 100 MiB (400 on CUDA) of the device's memory
    while it runs, so it must be kept away from what is being measured.
    """
    largest = 8192 if device.type == "cuda" else 2048
    best = 0.0
    for size, seconds in _products(device, dtype, largest):
        best = max(best, 2 * size**3 / seconds)
    return best


def _products(
    device: torch.device, dtype: torch.dtype, largest: int, budget_s: float = 0.25
) -> Iterator[tuple[int, float]]:
    """Yield (size, seconds) of products of growing size, then of repeats, while time is left."""
    # Not of a product: the device's context, its libraries and their handles, which take seconds.
    tiny = torch.ones(16, 16, device=device, dtype=dtype)
    _timed_product(tiny, torch.empty_like(tiny))
    began = time.perf_counter()
    size, seconds = 256, 0.0
    while True:
        a = torch.ones(size, size, device=device, dtype=dtype)
        out = torch.empty_like(a)
        _timed_product(a, out)  # The first of a size also sets kernels up.
        seconds = _timed_product(a, out)
        yield size, seconds
        left = budget_s - (time.perf_counter() - began)
        # Of the next size, one costs eight times as much; two run, and filling costs as well.
        if size == largest or 2.5 * 8 * seconds > left:
            break
        size *= 2
    while time.perf_counter() - began + seconds < budget_s:
        seconds = _timed_product(a, out)
        yield size, seconds


def _timed_product(a: torch.Tensor, out: torch.Tensor) -> float:
    """Return how many seconds a·a takes."""
    if a.device.type != "cuda":
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        return time.perf_counter() - start
    events: Any = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    before, after = events
    stream = torch.cuda.current_stream(a.device)
    before.record(stream)
    torch.mm(a, a, out=out)
    after.record(stream)
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3
