"""FakeRecording records what a run would allocate, from a run on tensors that hold no memory.

The code that runs is the real one; operators only work out shapes. On a PyTorch built without CUDA,
fake CUDA tensors abort in autograd. So the tensors are fake CPU tensors, and DeviceModel imitates
the ways of the device.
"""

from __future__ import annotations

import functools
import sys
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    UnsupportedFakeTensorException,
    UnsupportedMutationAliasingException,
    UnsupportedOperatorException,
)
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from reformer_bench.measure.fake.autograd import adds_in_place, single_holder, writes_in_place
from reformer_bench.measure.fake.composites import COMPOSITES
from reformer_bench.measure.fake.devices import CPU, DeviceModel
from reformer_bench.measure.fake.disguise import fake_tensors_in_disguise
from reformer_bench.measure.fake.explain import explanation_of
from reformer_bench.measure.fake.ledger import SavedScalars, StorageLedger
from reformer_bench.measure.fake.memo import ShapeMemo
from reformer_bench.measure.fake.operators_cpu import is_known, table_note
from reformer_bench.measure.fake.operators_cpu_loss import kept_elements
from reformer_bench.measure.fake.operators_cpu_nn import completed
from reformer_bench.measure.fake.operators_moe import grouped_product
from reformer_bench.measure.fake.origins import ExplainedLedger
from reformer_bench.measure.fake.outside import (
    OneMode,
    Outside,
    arrays_answered,
    has_real,
    imports_unrecorded,
)
from reformer_bench.measure.fake.random_state import random_states_seen
from reformer_bench.measure.fake.reads import NotPredictableError, Reads
from reformer_bench.measure.fake.snapshot import snapshot_of
from reformer_bench.measure.fake.source import copies_buffer_deeply, is_torchs, place
from reformer_bench.measure.fake.values import KnownValues
from reformer_bench.measure.flops import missing_formulas
from reformer_bench.measure.profile import Recording
from reformer_bench.measure.timeline import (
    COLD,
    WARM,
    LabelKind,
    Peak,
    PhaseInterval,
    StorageLabel,
    Timeline,
)
from reformer_bench.schema.explanation import Explanation
from reformer_bench.schema.record import AllocatorMemory, Prediction

HOST = torch.device("cpu", 0)
"""The host's memory, where the device is a fake CUDA one: to torch another device than ``cpu``,
which stands for the GPU's memory, so that what comes of a tensor there is there too, and an
operator on tensors of both is an error. Its tensors are not recorded."""


class FakeRecording(Recording):
    """What a run would allocate, with a clock that counts events.

    It is made by ``record_fake_allocations``.
    """

    def __init__(self, device: DeviceModel, *, explain: bool = False) -> None:
        self.device = device
        self.flops: dict[int, int] = {}
        """The matrix products' FLOPs in the phases of each step, by its number."""
        self._explained = ExplainedLedger(device.taken_bytes) if explain else None
        self._ledger: StorageLedger = (
            StorageLedger(device.taken_bytes) if self._explained is None else self._explained
        )
        self.scalars = SavedScalars(self._ledger, in_memory=device.scalars_take_memory)
        self._phases: list[PhaseInterval] = []
        self._labels: list[StorageLabel] = []
        self.values = KnownValues()
        self.reads = Reads(self.values)
        self.mode = OneMode()
        """Makes the tensors of the recording fake."""
        self.outside = Outside(self.mode, self._ledger, self.values)
        self._unknown: dict[Any, None] = {}
        self._known: dict[Hashable, tuple[int, int]] = {}
        """The bytes and FLOPs of work that was followed, by its key."""
        self._timeline: Timeline | None = None
        self._counted = 0

    @contextmanager
    def phase(self, name: str, step: int = COLD) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold step."""
        start, counted = len(self._ledger), self._counted
        try:
            yield
        finally:
            self.scalars.settle()
            self._phases.append(PhaseInterval(name, start, len(self._ledger), step))
            self.flops[step] = self.flops.get(step, 0) + self._counted - counted

    def label(self, kind: LabelKind, tensors: Iterable[torch.Tensor]) -> None:
        """Say what the storages of these tensors are; those that weren't recorded are passed
        over.
        """
        now = len(self._ledger) - 1
        numbers = (self._ledger.number_of(tensor) for tensor in tensors)
        self._labels += [
            StorageLabel(kind, now, number) for number in numbers if number is not None
        ]
        if self._explained is not None and kind == "gradients":
            self._explained.name_gradients()

    @contextmanager
    def step(self, number: int, module: nn.Module) -> Iterator[None]:
        """Count what a submodule's forward pass allocates to the submodule's dotted name.

        Plain leaves (an activation, a projection) count to the module around them. Before the cold
        step comes what the device itself takes then and keeps.
        """
        explained = self._explained
        if number == COLD and self.device.constant_bytes:
            if explained is not None:
                explained.begin("workspace of the device's libraries")
            self._ledger.hold(self.device.constant_bytes)
        names = {
            id(submodule): name
            for name, submodule in module.named_modules()
            if name and next(submodule.children(), None) is not None
        }
        running: list[Any] = []

        def enter(submodule: nn.Module, _: Any) -> None:
            if id(submodule) in names:
                running.append(place := self.at(names[id(submodule)]))
                place.__enter__()

        def leave(submodule: nn.Module, *_: Any) -> None:
            if id(submodule) in names and running:
                running.pop().__exit__(None, None, None)

        entering = register_module_forward_pre_hook(enter)
        leaving = register_module_forward_hook(leave, always_call=True)
        try:
            with nullcontext() if explained is None else explained.watch(module):
                yield
        finally:
            entering.remove()
            leaving.remove()

    @contextmanager
    def at(self, place: str | None) -> Iterator[None]:
        """Count what is allocated inside to a place of the model; None changes nothing."""
        before = self._ledger.place
        if place is not None:
            self._ledger.place = place
        try:
            yield
        finally:
            self._ledger.place = before

    def once(self, key: Hashable, work: Callable[[], None]) -> None:
        """Follow work that has not been followed under this key; otherwise write down what it did.

        ``key`` must decide the shapes of everything that the work makes. Work that leaves something
        allocated, or frees what was there before, is followed each time.
        """
        known = self._known.get(key)
        if known is not None:
            height_bytes, flops = known
            if self._explained is None:
                self._ledger.bump(height_bytes)
            else:
                self._explained.bump_again(key, height_bytes)
            self._counted += flops
            return
        counted, height = self._counted, None
        self._ledger.start()
        try:
            work()
        finally:
            self.scalars.settle()
            height = self._ledger.stop()
        if height is not None:
            self._known[key] = (height, self._counted - counted)
            if self._explained is not None:
                self._explained.keep(key)

    def add(
        self,
        operator: Any,
        out: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        held_bytes: int = 0,
    ) -> None:
        """Write down what an operator made, what it held inside meanwhile, and its FLOPs.

        ``held_bytes`` come to what its shapes say that it holds inside, or go off it if negative.
        """
        if self._explained is not None:
            self._explained.begin(operator)
        self._see(out)
        if not is_known(operator):
            self._unknown[operator] = None
        self._ledger.bump(self.device.internal_bytes(operator, out, args, kwargs) + held_bytes)
        formula = _flop_formulas().get(operator.overloadpacket)
        if formula is not None:
            self._counted += formula(*args, **kwargs, out_val=out)

    def _see(self, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            if out.device != HOST:
                self._ledger.see(out)
        elif isinstance(out, tuple | list):
            for item in out:
                self._see(item)

    def see(self, tensor: torch.Tensor) -> None:
        """Write down a tensor that was made without any operator."""
        self._see(tensor)

    def finish(self) -> None:
        """End the recording; after this ``timeline`` is there."""
        self._ledger.close()
        deltas = np.array(self._ledger.deltas, dtype=np.int64)
        numbers = np.array(self._ledger.numbers, dtype=np.int64)
        clock = np.arange(len(deltas), dtype=np.int64)
        self._timeline = Timeline(clock, numbers, deltas, tuple(self._phases), tuple(self._labels))

    @property
    def timeline(self) -> Timeline:
        """The events, phases and labels; RuntimeError while the recording still runs."""
        if self._timeline is None:
            raise RuntimeError("the recording has not ended: read its timeline after the block")
        return self._timeline

    def allocator_memory(self) -> AllocatorMemory | None:
        """Return the record's part, as a CPU recording has it."""
        return self.timeline.memory("fake-tensor")

    def bytes_by_place(self, peak: Peak) -> dict[str, dict[str, int]]:
        """Return the bytes alive at a peak, by place and then by kind; the place "" is what runs
        outside any.
        """
        found: dict[str, dict[str, int]] = {}
        for number, size, kind in self.timeline.alive_at(peak):
            kinds = found.setdefault(self._ledger.places.get(number, ""), {})
            kinds[kind] = kinds.get(kind, 0) + size
        return found

    def unknown_operators(self) -> tuple[str, ...]:
        """Return the operators that were taken to hold nothing inside because nothing is known of
        them, in the order of their first call.
        """
        return tuple(map(str, self._unknown))

    def _table_notes(self) -> Iterator[str]:
        """Say where the table of what operators hold inside may fall short, on the CPU."""
        if self.device.kind != "cpu":
            return
        note = table_note()
        if note is not None:
            yield note
        if self._unknown:
            names = ", ".join(self.unknown_operators())
            yield f"what these operators hold inside is not known and was not counted: {names}"

    def prediction(self) -> Prediction:
        """Return what a cold and a warm step will take; ValueError where no phase was entered."""
        memory, peak = self.allocator_memory(), self.timeline.peak_of_step(WARM)
        if memory is None or peak is None:
            raise ValueError("expected the step to enter a phase ('forward'), it entered none")
        return Prediction(
            memory,
            self.flops[WARM],
            self.bytes_by_place(peak),
            (*self.reads.notes, *self._table_notes()),
            self.explanation(),
        )

    def explanation(self) -> Explanation | None:
        """Return what is alive at the highest peak of the steps; None unless that was asked for."""
        if self._explained is None:
            return None
        return explanation_of(self.timeline, self._explained)

    def snapshot(self) -> dict[str, Any]:
        """Return every allocation and release as PyTorch's memory viewer reads them.

        ValueError is raised for a recording that was not to be explained.
        """
        if self._explained is None:
            raise ValueError("expected a recording with explain=True, which this one is not")
        return snapshot_of(self.timeline, self._explained)


class _Follower(TorchDispatchMode):
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
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            # Asked for several times an operator by autograd; the tensor itself knows the answer.
            return args[0].device
        if func is _DEVICE:
            return func(*args, **kwargs)
        if func in COMPOSITES and self._recording.device.kind == "cpu":
            with self:
                return COMPOSITES[func](*args, **kwargs)
        self._scalars.settle()
        if func is torch.ops.aten.add.Tensor:
            into = adds_in_place(args, self._single)
            if into is not None:
                func, args = torch.ops.aten.add_.Tensor, into
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


@contextmanager
def record_fake_allocations(
    device: DeviceModel = CPU, *, explain: bool = False
) -> Iterator[FakeRecording]:
    """Make the tensors of the block fake, and record what they would take, with ``explain`` also
    where it comes from.

    Raises NotPredictableError, naming operator and source line, where the code inside depends on
    the values of tensors.
    """
    recording = FakeRecording(device, explain=explain)
    with ExitStack() as stack:
        stack.enter_context(_explained(recording.reads))
        # Copying a tensor deeply asks whether it has data; that is no reader's concern.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        stack.enter_context(imports_unrecorded())
        stack.enter_context(fake_tensors_in_disguise())
        stack.enter_context(arrays_answered(recording.reads.as_numpy))
        follower = _Follower(recording)
        stack.enter_context(recording.mode)
        stack.enter_context(follower)
        if device.kind == "cpu":
            stack.enter_context(random_states_seen(recording.see))
        try:
            yield recording
        finally:
            recording.finish()


# Asked for by fake tensors themselves, in the middle of other operators.
_DEVICE = torch.ops.prim.device.default
_READ = torch.ops.aten._local_scalar_dense.default
_GROUPED = torch.ops.aten._grouped_mm.default
_CLONE = torch.ops.aten.clone.default
_LIFT = torch.ops.aten.lift_fresh.default
_OPTIMIZERS_NUMBER = 0.5
"""What an optimizer reads from a tensor of its own: neither 0 nor 1, since NAdam divides by what it
lacks to 1."""
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


@functools.cache
def _flop_formulas() -> dict[Any, Callable[..., int]]:
    ours = {operator: shape_wrapper(formula) for operator, formula in missing_formulas().items()}
    return {**flop_registry, **ours}


_REFUSALS: dict[type[Exception], str] = {
    DataDependentOutputException: "reads a value out of a tensor",
    DynamicOutputShapeException: "makes a tensor whose shape depends on values",
    UnsupportedOperatorException: "has no rule for fake tensors",
    UnsupportedFakeTensorException: "does not work on fake tensors",
    UnsupportedMutationAliasingException: "does not work on fake tensors",
}
_WORDS_OF_REFUSALS = ("data pointer", "FakeTensor", "Please convert all Tensors to FakeTensors")


@contextmanager
def _explained(reads: Reads) -> Iterator[None]:
    """Turn what fake tensors refuse into a NotPredictableError, and what fails after a size was
    taken to be as large as it can be; other errors pass.
    """
    try:
        yield
    except Exception as error:
        what = next((words for kind, words in _REFUSALS.items() if isinstance(error, kind)), None)
        text = " ".join(str(error).split())
        if what is not None:
            text = f"{getattr(error, 'func', None) or error} {what}"
        elif isinstance(error, RuntimeError | AssertionError | TypeError) and any(
            words in text for words in _WORDS_OF_REFUSALS
        ):
            text = text[:160]
        elif isinstance(error, RuntimeError | ValueError) and reads.bounded is not None:
            text = f"{text[:160]} (after {reads.bounded})"
        else:
            raise
        raise NotPredictableError(
            f"cannot be predicted without running it: {text}, at {_code_line(error)}"
        ) from error


def _code_line(error: BaseException) -> str:
    """Return file and line of the innermost frame that is neither torch's nor this package's
    probes.
    """
    lines = [
        place(frame.filename, frame.lineno or 0)
        for frame in traceback.extract_tb(error.__traceback__)
        if not is_torchs(frame.filename)
    ]
    return lines[-1] if lines else "an unknown line"
