"""States of random numbers count as the memory that they are."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.fake.stand_in import held_in_run


def train(recording: Any) -> Any:
    layers = [nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.1)) for _ in range(3)]
    with recording.phase("forward"):
        x = torch.randn(16, 32)
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False)
        loss = x.square().mean()
        del x
    with recording.phase("backward"):
        loss.backward()
        del loss
    return recording


def test_checkpointing_with_random_numbers_is_predicted_to_the_byte():
    before = torch.get_rng_state
    with record_fake_allocations() as recording:
        predicted = train(recording)
    assert torch.get_rng_state is torch.random.get_rng_state is before
    with record_cpu_allocations() as recording:
        measured = train(recording)
    phases = [
        [(phase.phase, phase.allocated_bytes) for phase in one.allocator_memory().cold]
        for one in (predicted, measured)
    ]
    assert phases[0] == phases[1]
    # Three states, at least, of 5,056 bytes are kept.
    assert dict(phases[0])["forward"] > 3 * 5056


def test_the_trial_of_an_operator_counts_no_state_and_draws_no_number() -> None:
    held_in_run.cache_clear()
    torch.manual_seed(0)
    expected = torch.get_rng_state()
    with record_fake_allocations() as recording, recording.phase("forward"):
        x = torch.ones(3, 2, 8, 8)
        out = torch.nn.functional.conv2d(x, torch.ones(4, 2, 3, 3))
        del x, out
    alive = recording.timeline.live_bytes
    assert alive[-1] == 0
    assert 5056 not in recording.timeline.delta_bytes
    assert torch.equal(torch.get_rng_state(), expected)
