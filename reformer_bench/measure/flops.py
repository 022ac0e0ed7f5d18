"""Counts how many FLOPs a callable does, and measures how many a second the device can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_aten = torch.ops.aten

# B batch, H heads, Lq and Lk query and key length, D head width, Dv value width.


def _addmm(_out: Any, a_MK: Any, b_KN: Any, *_: Any, **__: Any) -> int:
    (m, k), (_k, n) = a_MK, b_KN
    return 2 * m * k * n


def _baddbmm(_out: Any, a_BMK: Any, b_BKN: Any, *_: Any, **__: Any) -> int:
    (b, m, k), (_b, _k, n) = a_BMK, b_BKN
    return 2 * b * m * k * n


def _mv(a_MK: Any, _x_K: Any, *_: Any, **__: Any) -> int:
    m, k = a_MK
    return 2 * m * k


def _attention(q_BHLD: Any, k_BHLD: Any, v_BHLD: Any, *_: Any, **__: Any) -> int:
    """Count the scores and their product with the values; a causal mask saves nothing in this
    count.
    """
    b, h, lq, d = q_BHLD
    lk, dv = k_BHLD[2], v_BHLD[3]
    return 2 * b * h * lq * lk * (d + dv)


def _attention_backward(
    _grad: Any, q_BHLD: Any, k_BHLD: Any, v_BHLD: Any, *_: Any, **__: Any
) -> int:
    """Count five products: the scores again, and the gradients of scores, values, queries
    and keys.
    """
    b, h, lq, d = q_BHLD
    lk, dv = k_BHLD[2], v_BHLD[3]
    return 2 * b * h * lq * lk * (3 * d + 2 * dv)


_OURS: dict[Any, Callable[..., int]] = {
    _aten.addmm_: _addmm,
    _aten.baddbmm_: _baddbmm,
    _aten.mv: _mv,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._scaled_dot_product_efficient_attention: _attention,
    _aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
}


def missing_formulas() -> dict[Any, Callable[..., int]]:
    """Return formulas for those operators used here that torch's own registry leaves out."""
    return {op: formula for op, formula in _OURS.items() if op not in flop_registry}


class _NoModules:
    """Stands in for torch's tracker of modules, whose hooks fail in other people's reversible
    layers: their inputs claim gradients that nothing computes."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def count_flops(step: Callable[[], object]) -> int:
    """Count the FLOPs of every matrix product and attention kernel that a call of
    ``step`` runs.

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
    """Yield (size, seconds) of products of growing size, then of repeats, until the time is used
    up.
    """
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
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(a.device)
    before.record(stream)
    torch.mm(a, a, out=out)
    after.record(stream)
    after.synchronize()
    return before.elapsed_time(after) / 1e3
