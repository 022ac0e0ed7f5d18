"""Gives sublayers their parameters on the device: as they are, or copied from CPU memory in time.

Paper, section 3: a layer's parameters can wait in CPU memory while it isn't computing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from reformer_bench.model.sublayer import Sublayer
from reformer_bench.model.tensors import Tensors, detached_parameters

CPU = torch.device("cpu")


class ParameterLoader:
    """Yields each sublayer with its parameters on the device, in order.

    With ``offload``, the next sublayer's parameters are copied on a stream of their own while the
    current one computes (CUDA), and a sublayer's copies are dropped when it is done: at most two
    sublayers' parameters are on the device, however deep the stack.
    """

    def __init__(
        self, device: torch.device = CPU, *, offload: bool, host: torch.device = CPU
    ) -> None:
        self.offload = offload
        self._device, self._host = device, host
        self._stream: torch.cuda.Stream | None = None
        if offload and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def load_each(self, sublayers: Sequence[Sublayer]) -> Iterator[tuple[Sublayer, Tensors]]:
        """Yield (sublayer, its parameters by name) in the given order.

        Offloaded parameters are there until the next are asked for.
        """
        if not self.offload:
            for sublayer in sublayers:
                yield sublayer, detached_parameters(sublayer)
            return
        coming = self._load(sublayers[0])
        for i, sublayer in enumerate(sublayers):
            current = coming
            if self._stream is not None:
                self._hand_over(current)
            if i + 1 < len(sublayers):
                coming = self._load(sublayers[i + 1])
            yield sublayer, current
            # The caller's loop still holds the dict while the one after the next is copied.
            current.clear()

    def store_gradients(self, grads: Tensors) -> list[Tensor]:
        """Return a sublayer's gradients, in order, where its parameters live."""
        if not self.offload:
            return list(grads.values())
        return [grad.to(self._host, copy=True) for grad in grads.values()]

    def _load(self, module: nn.Module) -> dict[str, Tensor]:
        """Begin to copy the parameters, and return the copies."""
        params = detached_parameters(module)
        if self._stream is None:
            return {name: p.to(self._device, copy=True) for name, p in params.items()}
        # The copy stream must not overwrite memory that running kernels still read.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            return {name: p.to(self._device, non_blocking=True) for name, p in params.items()}

    def _hand_over(self, tensors: Tensors) -> None:
        """Make the computing stream wait for the copies, and the allocator know of both streams."""
        assert self._stream is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tensors.values():
            tensor.record_stream(current)
