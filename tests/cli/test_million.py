"""Long sequences inside 16 GiB, really run: minutes each, a million tokens most of an hour."""

import subprocess

import pytest

from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import GIB
from reformer_bench.store import load_run
from tests.cli.test_run import command

pytestmark = pytest.mark.long


def million(folder, *arguments: str) -> Record:
    out = folder / "out"
    asked = ("run", "--suite", "million", "--device", "cpu", "--memory-budget", "16GiB")
    words, env = command(*asked, "--out", out, *arguments)
    # With all threads: one would take twice as long, and memory is asked about, not time.
    env.pop("OMP_NUM_THREADS", None)
    subprocess.run(words, cwd=folder, env=env, check=True, timeout=7200)
    (record,) = load_run(out).records
    return record


def besides_parameters(record: Record) -> int:
    assert record.memory.allocator is not None
    parts = record.memory.allocator.breakdown
    assert parts is not None
    return parts.activations_bytes + parts.temporaries_bytes


def test_layers_cost_parameters_and_nothing_else_at_131072_tokens(tmp_path):
    found = []
    for layers in (2, 6):
        (tmp_path / str(layers)).mkdir()
        arguments = ("--seq-len", "128K", "--set", f"model.n_layers={layers}")
        record = million(tmp_path / str(layers), *arguments)
        assert record.outcome is Outcome.OK
        found.append(besides_parameters(record))
    assert found[0] == found[1]


def test_a_training_step_on_a_million_tokens_fits_16_gib(tmp_path):
    record = million(tmp_path)
    assert record.outcome is Outcome.OK
    assert record.memory.peak_bytes is not None
    assert record.memory.peak_bytes < 16 * GIB
    assert record.memory.host is not None
    assert record.memory.host.peak_bytes < 16 * GIB
