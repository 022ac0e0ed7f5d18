"""Which processor instructions PyTorch and oneDNN use, in words, and how to have them use fewer.

Kernels hold other buffers with other instructions: bfloat16 products take none on a processor
without AVX-512, and some with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

LIMIT_OF_TORCH = "ATEN_CPU_CAPABILITY"
LIMIT_OF_ONEDNN = "ONEDNN_MAX_CPU_ISA"
"""Environment variables, read once, when the libraries load."""

_ONEDNN_SETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SSE41", ("sse4_1",)),
    ("AVX", ("avx",)),
    ("AVX2", ("avx2",)),
    ("AVX512_CORE", ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")),
    ("AVX512_CORE_VNNI", ("avx512_vnni",)),
    ("AVX512_CORE_BF16", ("avx512_bf16",)),
    ("AVX512_CORE_FP16", ("avx512_fp16",)),
    ("AVX512_CORE_AMX", ("amx_tile", "amx_bf16", "amx_int8")),
    ("AVX512_CORE_AMX_FP16", ("amx_fp16",)),
)
"""oneDNN's names, each beyond the one before, and what a processor needs for it besides."""

_NEWER_NAMES = {
    "AVX10_1_512": "AVX512_CORE_FP16",
    "AVX10_1_512_AMX": "AVX512_CORE_AMX",
    "AVX10_1_512_AMX_FP16": "AVX512_CORE_AMX_FP16",
}


def instruction_set() -> str:
    """Name what this process uses, in PyTorch's own kernels and in oneDNN. Imports torch."""
    import torch

    # Not in every torch that is supported.
    features: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    limit = os.environ.get(LIMIT_OF_ONEDNN, "")
    onednn = onednn_set(features, limit)
    words = torch.backends.cpu.get_cpu_capability()
    return f"{words}, oneDNN {onednn}" if onednn else words


def onednn_set(features: Mapping[str, object], limit: str = "") -> str | None:
    """Return the largest of oneDNN's sets that a processor has, up to a limit; None for none."""
    limit = _NEWER_NAMES.get(limit.upper(), limit.upper())
    found = None
    for name, needed in _ONEDNN_SETS:
        if not all(features.get(feature) for feature in needed):
            break
        found = name
        if name == limit:
            break
    return found


def environment_to_play(recorded: str) -> dict[str, str]:
    """Return the environment variables that make a process use no more than a recorded set.

    There are none for a set of another architecture, or of a record that doesn't say.
    """
    found = re.fullmatch(r"(AVX2|AVX512|DEFAULT), oneDNN (\w+)", recorded)
    if found is None:
        return {}
    return {LIMIT_OF_TORCH: found[1].lower(), LIMIT_OF_ONEDNN: found[2]}
