"""The shipped Triton programs compile for every architecture, all but spill-free, within limits."""

from __future__ import annotations

import pytest
import torch

from tests.model.attention.compiled import PROGRAMS, SHARED_BYTES, compiled

pytest.importorskip("triton")

LARGEST_STACK = 16
"""Bytes; a program keeps a few of its addresses there."""


def check(architecture: int, dtype: torch.dtype, d_head: int, chunk_length: int) -> None:
    for program in PROGRAMS:
        found = compiled(program, architecture, dtype, d_head, chunk_length)
        assert found.stack_bytes <= LARGEST_STACK, (program, found)
        assert found.shared_bytes <= SHARED_BYTES[architecture] << 10, (program, found)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 120])
@pytest.mark.parametrize("d_head", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_hardly_a_register_spills_with_chunks_of_64(architecture, d_head, dtype):
    check(architecture, dtype, d_head, 64)


@pytest.mark.long
@pytest.mark.parametrize("architecture", SHARED_BYTES)
@pytest.mark.parametrize("d_head", [64, 128])
@pytest.mark.parametrize("chunk_length", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_hardly_a_register_spills_with_any_chunks(architecture, d_head, chunk_length, dtype):
    check(architecture, dtype, d_head, chunk_length)
