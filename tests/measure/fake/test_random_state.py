"""States of the random generator count as the tensors that they are."""

import torch

from reformer_bench.measure.fake.random_state import random_states_seen


def test_states_are_shown_until_the_block_ends():
    seen: list[torch.Tensor] = []
    before = torch.get_rng_state
    with random_states_seen(seen.append):
        states = [torch.get_rng_state(), torch.random.get_rng_state()]
        with torch.random.fork_rng(devices=[]):
            pass
    assert [x is y for x, y in zip(seen, states, strict=False)] == [True, True]
    assert len(seen) == 3
    assert torch.get_rng_state is before
    assert torch.random.get_rng_state is before
