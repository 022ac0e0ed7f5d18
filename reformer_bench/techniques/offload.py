"""What the backward pass needs waits in the host's memory."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks


def offloaded_activations(
    device: torch.device, host: torch.device | None
) -> AbstractContextManager[object]:
    """Return a context in which tensors saved for the backward pass go to the host's memory, and
    come back when they are needed.

    On CUDA it is torch's own ``save_on_cpu`` with pinned memory. On the CPU nothing moves.

    Args:
        device: Where the module computes.
        host: The host's memory in a prediction for CUDA, whose tensors are fake CPU tensors; None
            elsewhere.
    """
    if host is None:
        return save_on_cpu(pin_memory=device.type == "cuda")

    def pack(tensor: Tensor) -> tuple[torch.device, Tensor]:
        return tensor.device, tensor.to(host)

    def unpack(packed: tuple[torch.device, Tensor]) -> Tensor:
        where, tensor = packed
        return tensor.to(where)

    return saved_tensors_hooks(pack, unpack)
