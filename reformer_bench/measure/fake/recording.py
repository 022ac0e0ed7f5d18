"""FakeRecording records what a run would allocate, from a run on tensors that hold no
memory.

The code that runs is the real one; operators only work out shapes. On a PyTorch built without CUDA,
fake CUDA tensors abort in autograd. So the tensors are fake CPU tensors, and DeviceModel imitates
the ways of the device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from reformer_bench.measure.fake.autograd import adds_in_place, single_holder
from reformer_bench.measure.fake.devices import CPU, DeviceModel
from reformer_bench.measure.fake.errors import explained
from reformer_bench.measure.fake.ledger import SavedNumbers, StorageLedger
from reformer_bench.measure.fake.memo import ShapeMemo
from reformer_bench.measure.flops import missing_formulas
from reformer_bench.measure.timeline import (
    Label,
    LabelKind,
    Peak,
    PhaseInterval,
    Timeline,
    allocator_memory,
)
from reformer_bench.schema.record import AllocatorMemory

HOST = torch.device("cpu", 0)
"""The host's memory, where the device is a fake CUDA one: to torch another device than ``cpu``,
which stands for the GPU's memory, so that what comes of a tensor there is there too, and an
operator on tensors of both is an error. Its tensors are not recorded."""


class FakeRecording:
    """The same interface as a CPU recording, with a clock that counts events.

    It is made by ``record_fake_allocations``.
    """

    def __init__(self, device: DeviceModel) -> None:
        self.device = device
        self.ledger = StorageLedger(device.rounded)
        self.numbers = SavedNumbers(self.ledger, kept=device.wraps_numbers)
        self.flops: dict[int, int] = {}
        """Of each step, by its number."""
        self._step = 0
        self._phases: list[PhaseInterval] = []
        self._labels: list[Label] = []
        self._known: dict[Hashable, tuple[int, int]] = {}
        self._timeline: Timeline | None = None
        self._counted = 0

    @contextmanager
    def phase(self, name: str, step: int = 0) -> Iterator[None]:
        """Count what runs inside to that phase of that step."""
        start, counted = len(self.ledger), self._counted
        try:
            yield
        finally:
            self.numbers.settle()
            self._phases.append(PhaseInterval(name, start, len(self.ledger), step))
            self.flops[step] = self.flops.get(step, 0) + self._counted - counted

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are."""
        now = len(self.ledger) - 1
        numbers = (self.ledger.number_of(tensor) for tensor in tensors)
        self._labels += [Label(kind, now, number) for number in numbers if number is not None]

    @contextmanager
    def at(self, place: str | None) -> Iterator[None]:
        """Count what is allocated inside to a place of the model; None changes nothing."""
        before = self.ledger.place
        if place is not None:
            self.ledger.place = place
        try:
            yield
        finally:
            self.ledger.place = before

    def once(self, key: Hashable, work: Callable[[], None]) -> None:
        """Follow work that has not been followed under this key; otherwise write down
        what it did.

        ``key`` must decide the shapes of everything that the work makes. Work that leaves something
        allocated, or frees what was there before, is followed each time.
        """
        known = self._known.get(key)
        if known is not None:
            height, flops = known
            self.ledger.bump(height)
            self._counted += flops
            return
        counted = self._counted
        self.ledger.start()
        try:
            work()
        finally:
            self.numbers.settle()
            done = self.ledger.stop()
        if done is not None:
            self._known[key] = (done.height_bytes, self._counted - counted)

    def hold(self, n_bytes: int) -> None:
        """Write down bytes that the device itself takes now and keeps."""
        if n_bytes:
            self.ledger.hold(n_bytes)

    def saw(self, operator: Any, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write down what an operator made, and what it held out of sight meanwhile."""
        _see_all(self.ledger, out)
        self.ledger.bump(self.device.hidden(operator, out, args, kwargs))
        formula = _formulas().get(operator.overloadpacket)
        if formula is not None:
            self._counted += formula(*args, **kwargs, out_val=out)

    def finish(self) -> None:
        """End the recording; after this ``timeline`` is there."""
        import numpy as np

        self.ledger.close()
        deltas = np.array(self.ledger.deltas, dtype=np.int64)
        numbers = np.array(self.ledger.numbers, dtype=np.int64)
        clock = np.arange(len(deltas), dtype=np.int64)
        self._timeline = Timeline(clock, numbers, deltas, tuple(self._phases), tuple(self._labels))

    @property
    def timeline(self) -> Timeline:
        """The events, phases and labels; RuntimeError while the recording still runs."""
        if self._timeline is None:
            raise RuntimeError("the recording has not ended: read its timeline after the block")
        return self._timeline

    def allocator_memory(
        self, cold_step: int = 0, warm_step: int | None = None
    ) -> AllocatorMemory | None:
        """Return the record's part, as a CPU recording has it."""
        return allocator_memory(self.timeline, "fake-tensor", cold_step, warm_step)

    def by_place(self, peak: Peak) -> dict[tuple[str, str], int]:
        """Return the bytes alive at a peak by (place, kind); the place "" is what runs
        outside any.
        """
        found: dict[tuple[str, str], int] = {}
        for number, size, kind in self.timeline.alive_at(peak):
            key = (self.ledger.places.get(number, ""), kind)
            found[key] = found.get(key, 0) + size
        return found


class _Follower(TorchDispatchMode):
    """Shows a recording every operator that runs, above the mode that makes tensors fake."""

    def __init__(self, recording: FakeRecording, fake: FakeTensorMode) -> None:
        super().__init__()
        self._recording = recording
        self._numbers = recording.numbers
        self._single = single_holder()
        self._memo = ShapeMemo(fake)
        # Results that FakeTensorMode works out anew it also remembers, by weak references, which
        # keep Module.to from exchanging parameters.
        self._remembered = fake.fake_tensor_converter.meta_converter.tensor_memo

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _DEVICE:
            return func(*args, **kwargs)
        self._numbers.settle()
        if func is torch.ops.aten.add.Tensor:
            into = adds_in_place(args, self._single)
            if into is not None:
                func, args = torch.ops.aten.add_.Tensor, into
        if func is _READ and _asked_by_optimizer():
            return 1.0
        out = self._memo.run(func, args, kwargs)
        if func is _LIFT and self._recording.device.kind == "cuda" and _asked_by_optimizer():
            # An optimizer's counters are made where torch makes tensors by default: not on a GPU.
            return torch.empty(out.shape, dtype=out.dtype, device=HOST)
        if self._remembered:
            self._remembered.clear()
        self._recording.saw(func, out, args, kwargs)
        self._numbers.after(func, out, args)
        return out


@contextmanager
def record_fake_allocations(device: DeviceModel = CPU) -> Iterator[FakeRecording]:
    """Make the tensors of the block fake, and record what they would take.

    Raises NotPredictableError, naming operator and source line, where the code inside depends on
    the values of tensors.
    """
    recording = FakeRecording(device)
    with ExitStack() as stack:
        stack.enter_context(explained())
        fake = FakeTensorMode()
        follower = _Follower(recording, fake)
        stack.enter_context(fake)
        stack.enter_context(follower)
        try:
            yield recording
        finally:
            recording.finish()


# Asked for by fake tensors themselves, in the middle of other operators.
_DEVICE = torch.ops.prim.device.default
_READ = torch.ops.aten._local_scalar_dense.default
_LIFT = torch.ops.aten.lift_fresh.default
_OPTIMIZERS = str(Path(torch.optim.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)


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


def _see_all(ledger: StorageLedger, out: Any) -> None:
    if isinstance(out, torch.Tensor):
        if out.device != HOST:
            ledger.see(out)
    elif isinstance(out, tuple | list):
        for item in out:
            _see_all(ledger, item)


_FORMULAS: dict[Any, Callable[..., int]] = {}


def _formulas() -> dict[Any, Callable[..., int]]:
    if not _FORMULAS:
        from torch.utils.flop_counter import shape_wrapper

        ours = {op: shape_wrapper(formula) for op, formula in missing_formulas().items()}
        _FORMULAS.update({**flop_registry, **ours})
    return _FORMULAS
