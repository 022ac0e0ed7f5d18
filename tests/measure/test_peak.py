"""Peaks of blocks of code: exact to the byte, and the same predicted as measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reformer_bench.measure.peak import record_peak

METRICS = ("allocated", "predicted")
N = 1000


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_kept_and_what_is_temporary_add_up_to_the_peak(metric):
    with record_peak("cpu", metric) as recording:
        kept = torch.empty(N)
        gone = torch.empty(3 * N)
        del gone
        torch.empty(N)
    found = recording.reading
    assert (found.device, found.metric) == ("cpu", metric)
    assert found.peak_bytes == 16 * N
    assert (found.kept_bytes, found.temporary_bytes) == (4 * N, 12 * N)
    assert found.sizes_bytes == (12 * N, 4 * N)
    del kept


def test_what_was_allocated_before_is_not_counted_even_if_it_is_freed_inside():
    before = torch.empty(10 * N)
    with record_peak("cpu") as recording:
        del before
        torch.empty(N)
    assert recording.reading.peak_bytes == 4 * N


def step() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
    model(torch.randn(128, 32)).square().mean().backward()


def test_a_training_step_is_predicted_to_the_byte():
    step()
    readings = []
    for metric in METRICS:
        with record_peak("cpu", metric) as recording:
            step()
        readings.append(recording.reading.peak_bytes)
    assert readings[0] == readings[1] > 128 * 64 * 4


def test_predicted_for_cuda_counts_blocks_and_needs_no_device():
    with record_peak("cuda", "predicted") as recording:
        torch.empty(2**34)
        torch.empty(1)
    assert recording.reading.peak_bytes == 2**36
    assert recording.reading.device == "cuda"


def test_a_block_that_raises_is_read_as_well():
    with pytest.raises(ZeroDivisionError), record_peak("cpu") as recording:  # noqa: PT012
        torch.empty(N)
        1 / 0  # noqa: B018
    assert recording.reading.peak_bytes == 4 * N


def test_a_block_without_allocations_has_a_peak_of_zero():
    with record_peak("cpu") as recording:
        pass
    assert recording.reading.peak_bytes == 0


def test_the_reading_is_there_once_the_block_has_ended():
    with record_peak("cpu") as recording, pytest.raises(RuntimeError, match="has not ended"):
        _ = recording.reading


@pytest.mark.parametrize("arguments", [("tpu", "allocated"), ("cpu", "resident")])
def test_what_does_not_exist_is_an_error_that_names_what_does(arguments):
    with pytest.raises(ValueError, match="allowed"), record_peak(*arguments):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_a_cuda_device_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError, match="sees no CUDA device"), record_peak("cuda"):
        pass


@pytest.mark.gpu
def test_on_cuda_blocks_of_512_bytes_are_counted():
    before = torch.empty(10 * N, device="cuda")
    with record_peak("auto") as recording:
        del before
        kept = torch.empty(1, device="cuda")
        torch.empty(1024, device="cuda")
    assert recording.reading.device == "cuda:0"
    assert recording.reading.peak_bytes == 512 + 4096
    assert recording.reading.kept_bytes == 512
    del kept
