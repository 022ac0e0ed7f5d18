"""The profiled step: a build, a cold step and a warm one, recorded by phases and labelled.

A measurement and its prediction run the same code here, so that their phases begin and end at the
same events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from reformer_bench.measure.timeline import COLD, WARM, LabelKind
from reformer_bench.schema.record import AllocatorMemory, Phase

PhaseContext = Callable[[Phase], AbstractContextManager[object]]
"""What a step enters around each of its phases: ``with phase("forward"):``."""


class Recording(Protocol):
    """Follows memory while steps run: on the CPU, on CUDA, or on fake tensors."""

    def phase(self, name: str, step: int = COLD) -> AbstractContextManager[None]:
        """Count what runs inside to that phase of that step; the build counts to the cold step."""

    def label(self, kind: LabelKind, tensors: Iterable[Tensor]) -> None:
        """Say what the storages of these tensors are, for as long as each lives.

        Tensors on other devices than the recorded one are passed over.
        """

    def step(self, number: int, module: nn.Module) -> AbstractContextManager[None]:
        """Surround a whole step of a module, where a recording has something to do for that."""
        return nullcontext()

    def allocator_memory(self) -> AllocatorMemory | None:
        """Return the record's part; None where the cold step has no phases."""


class Profiled(Protocol):
    """What is profiled: a module, and a step in which it is used."""

    @property
    def module(self) -> nn.Module:
        """The module, whose parameters and gradients are told apart from other memory."""

    def step(self, phase: PhaseContext) -> None:
        """Run one step, and enter ``phase(name)`` around each of its phases."""


Built = TypeVar("Built", bound=Profiled)


def without_context(name: Phase) -> AbstractContextManager[None]:
    """Be the phase context of a step that nobody watches."""
    return nullcontext()


def record_build(recording: Recording, build: Callable[[], Built]) -> Built:
    """Build what is to be profiled, and label its parameters."""
    with recording.phase("build", COLD):
        built = build()
    recording.label("parameters", built.module.parameters())
    return built


def record_step(
    recording: Recording, profiled: Profiled, number: int, timed: PhaseContext = without_context
) -> None:
    """Run a step, and label the gradients and the optimizer state that its phases leave.

    Args:
        recording: It has begun, and the build was recorded in it.
        profiled: What ``record_build`` returned.
        number: ``COLD`` or ``WARM``.
        timed: Entered around each phase, inside the recording's.
    """
    optimizers: dict[Optimizer, None] = {}

    @contextmanager
    def phase(name: Phase) -> Iterator[None]:
        with recording.phase(name, number), timed(name):
            yield
        # As soon as a phase has made them: the optimizer's phase drops gradients in the end.
        if name == "backward":
            parameters = profiled.module.parameters()
            recording.label("gradients", [p.grad for p in parameters if p.grad is not None])
        elif name == "optimizer":
            recording.label("optimizer", _states(optimizers))

    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: optimizers.setdefault(optimizer, None)
    )
    try:
        with recording.step(number, profiled.module):
            profiled.step(phase)
    finally:
        hook.remove()


def record_steps(recording: Recording, build: Callable[[], Profiled]) -> None:
    """Run the build, a cold and a warm step."""
    profiled = record_build(recording, build)
    for number in (COLD, WARM):
        record_step(recording, profiled, number)


def _states(optimizers: Iterable[Optimizer]) -> Iterator[Tensor]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
