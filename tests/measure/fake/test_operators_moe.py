"""Products of experts: each expert's weights times the rows sent to it."""

import pytest
import torch

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.recording import record_fake_allocations

E, S, K, N = 4, 37, 24, 13
"""Experts, rows, widths of inputs and outputs; rows of N floats don't end on 16 bytes."""


def rows_of_experts(dtype):
    offsets = torch.tensor([5, 20, 20, S], dtype=torch.int32)
    x = torch.ones(S, K, dtype=dtype, requires_grad=True)
    weights = torch.ones(E, N, K, dtype=dtype).transpose(1, 2).requires_grad_()
    return torch.nn.functional.grouped_mm(x, weights, offs=offsets), (x, weights)


def batches_of_experts(dtype):
    x = torch.ones(E, S, K, dtype=dtype)
    weights = torch.ones(E, N, K, dtype=dtype).transpose(1, 2)
    return torch.nn.functional.grouped_mm(x, weights), ()


def peaks(recorder, work, dtype) -> list[int]:
    with recorder() as recording:
        with recording.phase("forward"):
            out, leaves = work(dtype)
        if leaves:
            with recording.phase("backward"):
                torch.autograd.grad(out, leaves, torch.ones(S, 16, dtype=dtype)[:, :N])
    memory = recording.allocator_memory()
    return [p.allocated_bytes for p in memory.cold]


@pytest.mark.parametrize("work", [rows_of_experts, batches_of_experts], ids=lambda w: w.__name__)
def test_products_of_experts_are_predicted_to_the_byte(work):
    predicted = peaks(record_fake_allocations, work, torch.float32)
    assert predicted == peaks(record_cpu_allocations, work, torch.float32)


@pytest.mark.parametrize("work", [rows_of_experts, batches_of_experts], ids=lambda w: w.__name__)
def test_the_result_lies_as_the_kernel_lays_it(work):
    real, _ = work(torch.float32)
    with record_fake_allocations():
        fake, _ = work(torch.float32)
        assert fake.shape == real.shape
        assert fake.stride() == real.stride()


def test_each_row_meets_one_expert():
    with record_fake_allocations() as recording, recording.phase("forward"):
        rows_of_experts(torch.float32)
    assert recording.flops[0] == 2 * S * K * N


def test_in_half_precision_no_less_is_held_than_where_one_expert_gets_all_rows():
    def product():
        offsets = torch.tensor([0, 0, 0, 512], dtype=torch.int32)
        x = torch.ones(512, 64, dtype=torch.bfloat16)
        weights = torch.ones(E, 96, 64, dtype=torch.bfloat16).transpose(1, 2)
        return torch.nn.functional.grouped_mm(x, weights, offs=offsets), ()

    product()
    predicted = peaks(record_fake_allocations, lambda dtype: product(), torch.bfloat16)
    assert predicted == peaks(record_cpu_allocations, lambda dtype: product(), torch.bfloat16)
