"""The states of the CPU's random numbers, which gradient checkpointing keeps: memory that no
operator allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_states_seen(see: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Call ``see`` with each state that ``torch.get_rng_state`` returns inside.

    A state is a tensor of 5,056 bytes that the generator makes by itself
    (CPUGeneratorImpl::get_state in aten/src/ATen/CPUGeneratorImpl.cpp), so that no dispatch mode
    sees it. It is a real one among fake tensors too. ``torch.utils.checkpoint`` keeps one for each
    part that it will run again, and ``torch.random.fork_rng`` one more meanwhile.
    """
    made = torch.random.get_rng_state

    def get_rng_state() -> torch.Tensor:
        state = made()
        see(state)
        return state

    # Both names: checkpoint uses the one, fork_rng the other.
    torch.get_rng_state = torch.random.get_rng_state = get_rng_state
    try:
        yield
    finally:
        torch.get_rng_state = torch.random.get_rng_state = made
