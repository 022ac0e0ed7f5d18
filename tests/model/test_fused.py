"""The fused programs of rows, run by Triton's interpreter, against the plain paths."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reformer_bench.model import ReformerLM
from tests.model.fused_cases import CASES
from tests.models import small_config

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_interpreted_programs_agree_with_the_plain_paths(case):
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.fused_cases", case],
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("streams", ["fixed", "float"])
def test_a_model_on_cuda_gives_the_same_loss_and_gradients_without_them(
    dtype, streams, monkeypatch
):
    fields = {"d_model": 48, "chunk_length": 32, "d_head": 16, "dtype": dtype, "streams": streams}
    results = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr("reformer_bench.model.fused.fuses", lambda device: False)
        torch.manual_seed(0)
        model = ReformerLM(small_config(**fields, ff_chunks=2, loss_chunks=2)).place("cuda")
        tokens = torch.randint(31, (2, 200), generator=torch.Generator().manual_seed(1)).cuda()
        loss = model.loss(tokens, tokens)
        loss.backward()
        model.check_streams()
        results.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    near = 1e-3 if dtype == "float32" else 3e-2
    torch.testing.assert_close(results[1][0], results[0][0], rtol=near, atol=near)
    assert (results[1][1] - results[0][1]).norm() < near * results[0][1].norm()
