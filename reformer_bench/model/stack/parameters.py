"""Gives sublayers their parameters on the device: as they are, or fetched from CPU memory
in time.

Paper, section 3: a layer's parameters can wait in CPU memory while it isn't computing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from reformer_bench.model.sublayer import Sublayer, Tensors


class ParameterFeed:
    """Yields each sublayer with its parameters on the device, in order.

    With ``offload``, the next sublayer's parameters are copied on a stream of their own while the
    current one computes (CUDA), and a sublayer's copies are dropped when it is done: at most two
    sublayers' parameters are on the device, however deep the stack.
    """

    def __init__(
        self, device: torch.device, *, offload: bool, host: torch.device | None = None
    ) -> None:
        self._device, self._offload = device, offload
        self._host = torch.device("cpu") if host is None else host
        self._stream = torch.cuda.Stream(device) if offload and device.type == "cuda" else None

    def over(self, sublayers: Sequence[Sublayer]) -> Iterator[tuple[Sublayer, Tensors]]:
        """Yield (sublayer, its parameters by name) in the given order."""
        if not self._offload:
            for sublayer in sublayers:
                yield sublayer, {name: p.detach() for name, p in sublayer.named_parameters()}
            return
        coming = self._fetch(sublayers[0])
        for i, sublayer in enumerate(sublayers):
            current = coming
            if self._stream is not None:
                self._hand_over(current)
            if i + 1 < len(sublayers):
                coming = self._fetch(sublayers[i + 1])
            yield sublayer, current
            del current

    def store(self, grads: Tensors) -> Tensors:
        """Put a sublayer's gradients where its parameters live."""
        if not self._offload:
            return grads
        return {name: grad.to(self._host, copy=True) for name, grad in grads.items()}

    def _fetch(self, module: nn.Module) -> Tensors:
        """Begin to copy the parameters, and return the copies."""
        if self._stream is None:
            return {n: p.detach().to(self._device, copy=True) for n, p in module.named_parameters()}
        # The copy stream must not overwrite memory that running kernels still read.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            return {
                name: p.detach().to(self._device, non_blocking=True)
                for name, p in module.named_parameters()
            }

    def _hand_over(self, tensors: Tensors) -> None:
        """Make the computing stream wait for the copies, and the allocator know of both streams."""
        assert self._stream is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tensors.values():
            tensor.record_stream(current)


def zero_grads(params: Tensors) -> dict[str, Tensor]:
    """Make room for the gradients of a sublayer's parameters."""
    return {name: torch.zeros_like(value) for name, value in params.items()}
