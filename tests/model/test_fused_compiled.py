"""The fused programs of rows compile for every architecture and keep no registers in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reformer_bench.model.fused import COLUMNS, NUMBERS, SUMS, block_of, warps_of
from tests.model.attention.compiled import (
    DTYPES,
    SHARED_BYTES,
    Compiled,
    compiled_program,
)

pytest.importorskip("triton")

LARGEST_STACK = 16
"""Bytes; a program keeps a few of its addresses there."""
PROGRAMS = (
    "normalise_rows", "normalise_rows_backward", "add_column_sums", "sum_columns",
    "activate_backward", "add_units", "count_in_range", "pack_weights",
)  # fmt: skip
_NARROW = ("h", "dh", "y", "da", "u", "narrow", "packed")
"""What is in the dtype that computes; all other tensors are float32, or the streams' integers."""
_STREAMS = ("first", "second", "stream", "reached")
_FLOATS = ("epsilon", "factor", "units_of_one", "limit")


def compiled_rows(program: str, architecture: int, dtype: torch.dtype, width: int) -> Compiled:
    """Compile a program for rows of a width: of a fixed-point stream, or of two side by side."""
    from reformer_bench.model import row_programs

    function = getattr(row_programs, program)
    two = program.startswith("normalise")
    block = block_of(width)
    n_warps = warps_of(block) if two or program == "pack_weights" else 4
    blocks = {"add_units": NUMBERS, "add_column_sums": SUMS[1]}
    by_columns = {"sum_columns", "activate_backward"}
    known: dict[str, Any] = {
        "SECOND": two, "ADD": True, "FRESH": False, "PARTS": SUMS[0], "COPY": True, "GELU": True,
        "SIGN": -1, "WATCH": True, "OPEN": False, "D": 64, "N": 3,
        "BLOCK": blocks.get(program, COLUMNS if program in by_columns else block),
    }  # fmt: skip
    constants = {name: value for name, value in known.items() if name in function.arg_names}
    signature, aligned = {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in _FLOATS:
            signature[name] = "fp32"
        elif name.startswith(("n_", "width", "step", "of_", "first_")) and name != "n_in_range":
            signature[name] = "i32"
        else:
            kind = DTYPES[dtype] if name in _NARROW else "fp32"
            if name in _STREAMS and program not in ("pack_weights", "count_in_range"):
                kind = "i32"
            signature[name] = f"*{'i64' if name == 'n_in_range' else kind}"
            # As memory from torch's allocator is.
            aligned[(place,)] = [["tt.divisibility", 16]]
    return compiled_program(function, signature, constants, aligned, architecture, n_warps)


def check(architecture: int, dtype: torch.dtype, width: int) -> None:
    for program in PROGRAMS:
        found = compiled_rows(program, architecture, dtype, width)
        assert found.stack_bytes <= LARGEST_STACK, (program, found)
        assert found.shared_bytes <= SHARED_BYTES[architecture] << 10, (program, found)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_nothing_spills_at_the_width_of_the_suites(architecture):
    check(architecture, torch.bfloat16, 2048)


@pytest.mark.long
@pytest.mark.parametrize("architecture", SHARED_BYTES)
@pytest.mark.parametrize("width", [512, 2048, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_nothing_spills_at_any_width(architecture, width, dtype):
    check(architecture, dtype, width)
