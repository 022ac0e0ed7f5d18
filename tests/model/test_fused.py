"""The fused programs of rows, run by Triton's interpreter, against the plain paths."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.fused_cases import CASES

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
