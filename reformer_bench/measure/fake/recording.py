"""FakeRecording records what a run would allocate, from a run on tensors that hold no memory.

The code that runs is the real one; operators only work out shapes. On a PyTorch built without CUDA,
fake CUDA tensors abort in autograd. So the tensors are fake CPU tensors, and DeviceModel imitates
the ways of the device.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.flop_counter import flop_registry, shape_wrapper

from reformer_bench.measure.fake.by_operator import by_operator
from reformer_bench.measure.fake.devices import CPU, HOST, DeviceModel
from reformer_bench.measure.fake.disguise import fake_tensors_in_disguise
from reformer_bench.measure.fake.explain import explanation_of
from reformer_bench.measure.fake.follower import Follower
from reformer_bench.measure.fake.ledger import SavedScalars, StorageLedger
from reformer_bench.measure.fake.operators_cpu import is_known, table_note
from reformer_bench.measure.fake.origins import ExplainedLedger
from reformer_bench.measure.fake.outside import (
    OneMode,
    Outside,
    arrays_answered,
    imports_unrecorded,
)
from reformer_bench.measure.fake.random_state import random_states_seen
from reformer_bench.measure.fake.reads import Reads
from reformer_bench.measure.fake.refusals import refusals_explained
from reformer_bench.measure.fake.snapshot import snapshot_of
from reformer_bench.measure.fake.values import KnownValues
from reformer_bench.measure.flops import missing_formulas
from reformer_bench.measure.profile import Recording
from reformer_bench.measure.roofline import NOTHING, Work, work_of
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
from reformer_bench.schema.prediction import Prediction
from reformer_bench.schema.record import AllocatorMemory
from reformer_bench.schema.standing import standing_for


class FakeRecording(Recording):
    """What a run would allocate, with a clock that counts events.

    It is made by ``record_fake_allocations``.
    """

    def __init__(self, device: DeviceModel, *, explain: bool = False) -> None:
        self.device = device
        self.flops: dict[int, int] = {}
        """The matrix products' FLOPs in the phases of each step, by its number."""
        self.work: dict[int, Work] = {}
        """Launches and bytes moved in the phases of each step, by its number, on a CUDA device."""
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
        self._known: dict[Hashable, tuple[int, int, Work]] = {}
        """The bytes held, the FLOPs and the launches of work that was followed, by its key."""
        self._timeline: Timeline | None = None
        self._counted = 0
        self._worked = NOTHING

    @contextmanager
    def phase(self, name: str, step: int = COLD) -> Iterator[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold step."""
        start, counted, worked = len(self._ledger), self._counted, self._worked
        try:
            yield
        finally:
            self.scalars.settle()
            self._phases.append(PhaseInterval(name, start, len(self._ledger), step))
            self.flops[step] = self.flops.get(step, 0) + self._counted - counted
            self.work[step] = self.work.get(step, NOTHING) + (self._worked - worked)

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
            height_bytes, flops, done = known
            if self._explained is None:
                self._ledger.bump(height_bytes)
            else:
                self._explained.bump_again(key, height_bytes)
            self._counted += flops
            self._worked += done
            return
        counted, worked, height = self._counted, self._worked, None
        self._ledger.start()
        try:
            work()
        finally:
            self.scalars.settle()
            height = self._ledger.stop()
        if height is not None:
            self._known[key] = (height, self._counted - counted, self._worked - worked)
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
        self.see(out)
        if not is_known(operator):
            self._unknown[operator] = None
        self._ledger.bump(self.device.internal_bytes(operator, out, args, kwargs) + held_bytes)
        if self.device.kind == "cuda":
            self._worked += work_of(operator, out, args, kwargs)
        formula = _flop_formula(operator)
        if formula is not None:
            self._counted += formula(*args, **kwargs, out_val=out)

    def see(self, made: Any) -> None:
        """Write down the tensors among results, or one that was made without any operator."""
        if isinstance(made, torch.Tensor):
            if made.device != HOST:
                self._ledger.see(made)
        elif isinstance(made, tuple | list):
            for item in made:
                self.see(item)

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
        work = self.work[WARM]
        return Prediction(
            memory,
            self.flops[WARM],
            self.bytes_by_place(peak),
            (*self.reads.notes, *self._table_notes()),
            self.explanation(),
            launches=work.launches,
            moved_bytes=work.moved_bytes,
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
        stack.enter_context(refusals_explained(recording.reads))
        # Copying a tensor deeply asks whether it has data; that is no reader's concern.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        stack.enter_context(imports_unrecorded())
        stack.enter_context(fake_tensors_in_disguise())
        stack.enter_context(arrays_answered(recording.reads.as_numpy))
        follower = Follower(recording)
        stack.enter_context(recording.mode)
        stack.enter_context(follower)
        if device.kind == "cpu":
            stack.enter_context(random_states_seen(recording.see))
        stack.enter_context(standing_for(device.kind))
        try:
            yield recording
        finally:
            recording.finish()


@functools.cache
def _flop_formulas() -> dict[Any, Callable[..., int]]:
    ours = {operator: shape_wrapper(formula) for operator, formula in missing_formulas().items()}
    return {**flop_registry, **ours}


@by_operator
def _flop_formula(operator: Any) -> Callable[..., int] | None:
    return _flop_formulas().get(operator.overloadpacket)
