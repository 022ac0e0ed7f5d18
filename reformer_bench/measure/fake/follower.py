"""Follower shows a recording every operator that runs on fake tensors, and what each one makes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from reformer_bench.measure.fake.autograd import (
    DispatchMode,
    adds_in_place,
    single_holder,
    writes_in_place,
)
from reformer_bench.measure.fake.by_operator import by_operator
from reformer_bench.measure.fake.composites import COMPOSITES
from reformer_bench.measure.fake.devices import HOST
from reformer_bench.measure.fake.memo import ShapeMemo
from reformer_bench.measure.fake.operators_cpu_loss import kept_elements
from reformer_bench.measure.fake.operators_cpu_nn import completed
from reformer_bench.measure.fake.operators_moe import grouped_product
from reformer_bench.measure.fake.outside import has_real
from reformer_bench.measure.fake.source import copies_buffer_deeply

if TYPE_CHECKING:
    from reformer_bench.measure.fake.recording import FakeRecording

# Asked for by fake tensors themselves, in the middle of other operators.
_DEVICE = torch.ops.prim.device.default
_ADD, _ADD_ = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor
_READ = torch.ops.aten._local_scalar_dense.default
_GROUPED = torch.ops.aten._grouped_mm.default
_CLONE = torch.ops.aten.clone.default
_LIFT = torch.ops.aten.lift_fresh.default
_OPTIMIZERS_NUMBER = 0.5
"""What an optimizer reads from a tensor of its own: neither 0 nor 1, since NAdam divides by what it
lacks to 1."""
_OPTIMIZERS = str(Path(torch.optim.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)


class Follower(DispatchMode):
    """Shows a recording every operator that runs, above the mode that makes tensors fake."""

    def __init__(self, recording: FakeRecording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        fake = recording.mode
        self._recording = recording
        self._scalars = recording.scalars
        self._single = single_holder()
        self._memo = ShapeMemo(fake)
        self._values, self._reads = recording.values, recording.reads
        self._outside = recording.outside
        # Results that FakeTensorMode works out anew it also remembers, by weak references, which
        # keep Module.to from exchanging parameters.
        self._remembered = fake.fake_tensor_converter.meta_converter.tensor_memo

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _DEVICE:
            # Autograd asks several times an operator; a fake tensor knows the answer itself.
            return args[0].device if isinstance(args[0], FakeTensor) else func(*args, **kwargs)
        composite = _composite(func)
        if composite is not None and self._recording.device.kind == "cpu":
            with self:
                return composite(*args, **kwargs)
        self._scalars.settle()
        if func is _ADD:
            into = adds_in_place(args, self._single)
            if into is not None:
                func, args = _ADD_, into
        func = writes_in_place(func)
        if func is _READ and _asked_by_optimizer():
            return _OPTIMIZERS_NUMBER
        if func is not _LIFT and (has_real(args) or has_real(kwargs.values())):
            args = self._outside.exchanged(args)
            kwargs = {name: self._outside.exchanged(value) for name, value in kwargs.items()}
        answer, held_bytes = self._reads.answer(func, args, kwargs), 0
        if answer is not None:
            out, held_bytes = answer
        elif func is _GROUPED:
            out = grouped_product(*args, **kwargs)
        else:
            out = self._memo.run(func, args, kwargs)
            kept = kept_elements(func, args, kwargs)
            if kept is not None:
                out = torch.empty(kept, dtype=out.dtype).resize_(())
        if func is _LIFT and self._recording.device.kind == "cuda" and _asked_by_optimizer():
            # An optimizer's counters are made where torch makes tensors by default: not on a GPU.
            return torch.empty(out.shape, dtype=out.dtype, device=HOST)
        if self._remembered:
            self._remembered.clear()
        if self._recording.device.kind == "cpu":
            out = completed(func, out, args)
        self._values.follow(func, out, args, kwargs)
        if func is _CLONE and copies_buffer_deeply():
            # A real one gets its storage in exchange for one of a single element.
            held_bytes += out.dtype.itemsize
        if func is _LIFT:
            # Its value is known by now; kept on the tensor, it would be copied with it.
            out.constant = None
        self._reads.follow(func, out, args)
        held_bytes -= self._scalars.read_bytes(func, args)
        self._recording.add(func, out, args, kwargs, held_bytes)
        self._scalars.after(func, out, args)
        return out


def _asked_by_optimizer() -> bool:
    """Whether one of torch's optimizers makes a tensor of a number, its count of steps, or reads
    a value (Adafactor reads norms): a step size, which decides nothing about memory."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OPTIMIZERS):
            return True
        if not path.startswith(_TORCH):
            return False
        frame = frame.f_back
    return False


@by_operator
def _composite(operator: Any) -> Callable[..., Any] | None:
    return COMPOSITES.get(operator)
