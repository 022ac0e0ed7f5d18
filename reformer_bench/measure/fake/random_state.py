"""States of the random generator, which torch copies to a tensor without calling an operator.

Activation checkpointing keeps one for each checkpoint, and one more while it runs a part again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def random_states_seen(see: Callable[[Tensor], None]) -> Iterator[None]:
    """Show ``see`` each state that is read by ``torch.get_rng_state`` or ``torch.random``."""
    read = torch.random.get_rng_state

    def get_rng_state() -> Tensor:
        state = read()
        see(state)
        return state

    places = (torch, torch.random)
    for place in places:
        vars(place)["get_rng_state"] = get_rng_state
    try:
        yield
    finally:
        for place in places:
            vars(place)["get_rng_state"] = read
