"""Launches Triton programs, and says where a model's fused programs run.

A program allocates nothing, so on fake tensors, which have no memory to read, nothing is left to do
but to say what it would have read, written and computed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from reformer_bench.schema.standing import kind_of

_LEAST_CAPABILITY = 8

# An operator that does nothing: torch's FLOP counter has a formula for it, and a prediction counts
# its launch and its bytes.
_LIBRARY = torch.library.Library("reformer_bench", "DEF")
_LIBRARY.define("launched(Tensor x, int flops, int moved_bytes) -> ()")
_LIBRARY.impl("launched", lambda x, flops, moved_bytes: None, "CompositeExplicitAutograd")
_launched = torch.ops.reformer_bench.launched


@register_flop_formula(_launched)
def _flops_of_launch(_x: Any, flops: int, *_: Any, **__: Any) -> int:
    return flops


def launch(
    module: str,
    program: str,
    grid: tuple[int, ...],
    n_warps: int,
    *arguments: Any,
    flops: int = 0,
    moved_bytes: int | None = None,
    **constants: Any,
) -> None:
    """Launch a program of a module of Triton programs.

    Args:
        module: The module's dotted name; it is imported where Triton is needed only.
        program: The program's name in it.
        grid: How many programs there are, by axis.
        n_warps: How many warps a program has.
        *arguments: What it is given, a tensor first.
        flops: What its matrix products compute.
        moved_bytes: What it reads and writes; each of its tensors once, unless given.
        **constants: What it is compiled for.
    """
    if isinstance(arguments[0], FakeTensor):
        if moved_bytes is None:
            given = {id(x): x for x in arguments if isinstance(x, Tensor)}
            moved_bytes = sum(x.nbytes for x in given.values())
        _launched(arguments[0], flops, moved_bytes)
        return
    if flops:
        # For a FLOP counter around a real run, which asks for no bytes.
        _launched(arguments[0], flops, 0)
    launched = getattr(importlib.import_module(module), program)[grid]
    launched(*arguments, **constants, num_warps=n_warps, num_stages=1)


@functools.cache
def why_not_here(device: torch.device) -> str | None:
    """Say why Triton's programs can't run on a CUDA device of this machine; None where they can.

    Triton compiles a launcher for each program with the machine's C compiler, and its tensor-core
    products for bfloat16 begin with compute capability 8.0.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton isn't installed"
    named = os.environ.get("CC", "").split()[:1]
    if not any(map(shutil.which, named or ("gcc", "clang", "cc"))):
        return f"no C compiler ({named[0]} of CC)" if named else "no C compiler"
    major, minor = torch.cuda.get_device_capability(device)
    if major < _LEAST_CAPABILITY:
        return f"compute capability {major}.{minor} is below {_LEAST_CAPABILITY}.0"
    return None


def fuses(device: torch.device) -> bool:
    """Say whether a model's fused programs run on a device."""
    if kind_of(device.type) != "cuda":
        return False
    return device.type != "cuda" or why_not_here(device) is None
