"""SavedNumbers follows the 8 bytes that autograd keeps of a Python number, from forward to
backward.

``x * 0.5`` wraps the number in a tensor of one element, and the product's backward node keeps it. A
dispatch mode sees the number only, so its tensor is followed here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer_bench.measure.storage_ledger import StorageLedger

_aten = torch.ops.aten
_KEEPING = frozenset({_aten.mul.Tensor, _aten.mul_.Tensor, _aten.div.Tensor, _aten.div_.Tensor})
_METADATA = "reformer_bench.saved_number"
_BYTES = 8


class _Saved:
    """The tensor of one number, which dies with its node, or when the node has run."""

    def __init__(self, ledger: StorageLedger) -> None:
        self._ledger = ledger
        self._number: int | None = ledger.hold(_BYTES)

    def end(self, *_: Any) -> None:
        if self._number is not None:
            self._ledger.release(self._number, _BYTES)
            self._number = None

    __del__ = end


class SavedNumbers:
    """Follows the numbers of one recording."""

    def __init__(self, ledger: StorageLedger, *, kept: bool) -> None:
        """``kept``: False on devices in whose memory such tensors don't lie."""
        self._ledger, self._kept = ledger, kept
        self._waiting: tuple[Tensor, _Saved] | None = None

    def settle(self) -> None:
        """Look for the last result's backward node: before each operator, and where work ends."""
        if self._waiting is None:
            return
        result, saved = self._waiting
        self._waiting = None
        # Declared as a method; it is the node's own dictionary.
        node: Any = result.grad_fn
        if node is not None:
            node.metadata[_METADATA] = saved
            node.register_hook(saved.end)

    def after(self, operator: Any, out: Any, args: tuple[Any, ...]) -> None:
        """Note, after an operator, the number that its backward node will keep."""
        if not self._kept or operator not in _KEEPING or len(args) != 2:
            return
        if not torch.is_grad_enabled():
            return
        x, number = args
        if not isinstance(number, Tensor) and isinstance(x, Tensor) and x.requires_grad:
            self._waiting = (out, _Saved(self._ledger))
