"""Instruction sets: named as oneDNN names them, and played by a new process."""

import os
import subprocess
import sys

import pytest

from reformer_bench.measure.environment import environment_to_play, instruction_set, onednn_set

AVX2 = dict.fromkeys(["sse4_1", "avx", "avx2"], True)
AVX512 = AVX2 | dict.fromkeys(["avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"], True)
ZEN4 = AVX512 | {"avx512_vnni": True, "avx512_bf16": True}


@pytest.mark.parametrize(
    ("features", "limit", "wanted"),
    [
        ({}, "", None),
        (AVX2, "", "AVX2"),
        (AVX2, "AVX512_CORE", "AVX2"),
        (ZEN4, "", "AVX512_CORE_BF16"),
        (ZEN4, "avx2", "AVX2"),
        (ZEN4, "AVX512_CORE_AMX", "AVX512_CORE_BF16"),
        ({**ZEN4, "avx512_fp16": True}, "AVX10_1_512", "AVX512_CORE_FP16"),
        (AVX512 | {"avx512_bf16": True}, "", "AVX512_CORE"),
    ],
)
def test_the_largest_set_up_to_the_limit(features, limit, wanted):
    assert onednn_set(features, limit) == wanted


@pytest.mark.parametrize("recorded", ["", "SVE256", "AVX512", "AVX2, oneDNN AVX2; rm -rf /"])
def test_what_is_not_understood_sets_nothing(recorded):
    assert environment_to_play(recorded) == {}


def test_a_process_plays_what_was_recorded():
    if ", oneDNN AVX" not in instruction_set():
        pytest.skip("not an x86 processor with AVX2")
    for wanted in ("AVX2, oneDNN AVX2", instruction_set()):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from {instruction_set.__module__} import *; print(instruction_set())",
            ],
            env={**os.environ, **environment_to_play(wanted)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == wanted
