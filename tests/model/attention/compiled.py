"""Compiles the Triton programs ahead of time, for architectures that needn't be there.

``python -m tests.model.attention.compiled`` prints what each program takes on each architecture:
registers, what of them lies in memory (stack), and shared memory.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reformer_bench.model.attention.kernels.triton import (
    ROWS,
    SLOTS,
    WARPS_OF_ROWS,
    Launch,
    precision,
    rows_hashed,
)

SHARED_BYTES = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""What a block may have, in KiB, by compute capability (CUDA C++ Programming Guide, technical
specifications per compute capability)."""
ATTENTION = ("attend", "attend_queries", "attend_keys")
OTHERS = (
    "hash_rounds", "unpack_order", "inverse_lengths", "combine", "along_outputs", "sum_rounds",
)  # fmt: skip
PROGRAMS = (*ATTENTION, *OTHERS)
DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_INTEGERS = ("n_slots", "n_rows", "length", "heads", "n_directions", "past")
_WIDE = ("normalisers", "normaliser", "along", "factor", "reached", "share", "alone_share")
_NARROW = ("position", "code", "chunk_of", "code_of", "keys")


@dataclass(frozen=True)
class Compiled:
    """What one program takes."""

    registers: int
    stack_bytes: int
    shared_bytes: int


def compiled(
    program: str, architecture: int, dtype: torch.dtype, d_head: int, chunk_length: int
) -> Compiled:
    """Compile a program of attention as it is shipped, shared queries and keys, causal."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from reformer_bench.model.attention.kernels import triton_programs

    layout = Launch.of(chunk_length, d_head, dtype)
    known: dict[str, Any] = {
        "C": chunk_length, "T": layout.tile, "D": d_head, "WIDTH": 2 * d_head, "ROUNDS": 4,
        "CAUSAL": True, "SHARED": True, "BY_SLOT": True, "ONCE": False, "RING": False,
        "ACROSS": False, "SELF_PENALTY": 1e5, "EMPTY_SLOT": -3, "PRECISION": precision(dtype),
        "POSITION_BITS": 16, "HALVES": (8, 32), "TILE": 32, "ROWS": ROWS, "MASKED": False,
        "PADDING_CODE": -1, "NO_SLOT": -2, "BLOCK": SLOTS, "KEY_EPSILON": 1e-6, "ALONE": -5e4,
    }  # fmt: skip
    function = getattr(triton_programs, program)
    if program == "hash_rounds":
        known["ROWS"] = rows_hashed(d_head, dtype)
    constants = {name: value for name, value in known.items() if name in function.arg_names}
    n_warps = layout.n_warps if program in ATTENTION else WARPS_OF_ROWS
    signature, aligned = {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in _INTEGERS:
            signature[name] = "i32"
        elif name == "scale":
            signature[name] = "fp32"
        else:
            kind = "i32" if name in _NARROW else "u8" if name == "valid" else DTYPES[dtype]
            signature[name] = f"*{'fp32' if name in _WIDE else kind}"
            # As memory from torch's allocator is.
            aligned[(place,)] = [["tt.divisibility", 16]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = triton.compile(
            ASTSource(function, signature=signature, constexprs=constants, attrs=aligned),
            target=GPUTarget("cuda", architecture, 32),
            options={"num_warps": n_warps, "num_stages": 1},
        )
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [str(reader), "--dump-resource-usage", file.name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return Compiled(int(found[1]), int(found[2]), int(made.metadata.shared))


def main() -> None:
    """Print the table of every program on every architecture."""
    architectures = [int(a) for a in sys.argv[1:]] or list(SHARED_BYTES)
    for architecture, dtype, d_head, chunk in itertools.product(
        architectures, DTYPES, (64, 128), (32, 64, 128)
    ):
        cells = []
        for program in ATTENTION:
            of = compiled(program, architecture, dtype, d_head, chunk)
            cells.append(
                f"{of.registers:3} regs {of.stack_bytes:4} B {of.shared_bytes >> 10:3} KiB"
            )
        name = str(dtype).removeprefix("torch.")
        print(
            f"sm_{architecture:<4} {name:9} D {d_head:3} C {chunk:3}  {'  '.join(cells)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
