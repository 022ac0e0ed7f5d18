"""ExplainedLedger knows where each storage of a fake recording comes from: operator, line, module.

Only recordings that are to be explained have one. It looks on: the events are those of any ledger.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from reformer_bench.measure import profile
from reformer_bench.measure.fake.ledger import StorageLedger


class Line(NamedTuple):
    """A line of Python, and the function that it stands in."""

    path: str
    number: int
    function: str

    def __str__(self) -> str:
        return f"{shown_path(self.path)}:{self.number}"


class Site(NamedTuple):
    """Where an operator was called."""

    module: str
    line: Line | None
    """The innermost line outside PyTorch; in a backward pass that of the forward operator."""
    your_line: Line | None
    """Where ``line`` is in an installed package: the innermost line outside of any."""
    backward_of: Any = None
    """The forward operator whose gradient is computed; None where it isn't a gradient's."""
    recomputed: bool = False
    """Whether a backward pass runs a part of the forward pass again."""


class Origin(NamedTuple):
    """What a storage is, and how it came about."""

    operator: Any
    """An operator, or words where no operator made it."""
    site: Site
    shape: tuple[int, ...] | None = None
    """None for what isn't a tensor."""
    dtype: torch.dtype | None = None
    inside: bool = False
    """Whether the operator holds it inside, and frees it before it returns."""


Parts = tuple[tuple[Origin, int], ...]
"""What work that was followed once held at its highest point, with the bytes of each."""

NOWHERE = Site("", None, None)
"""Of what no code is known that made it."""
_UNKNOWN = Origin("unknown", NOWHERE)


class ExplainedLedger(StorageLedger):
    """A ledger that knows of each storage what it is and where it comes from."""

    def __init__(self, taken_bytes: Callable[[int], int]) -> None:
        super().__init__(taken_bytes)
        self.origins: list[Origin | Parts] = []
        """By the number of each storage; parts where work that was followed once is written."""
        self.names: dict[int, str] = {}
        """Dotted names of parameters, buffers, gradients and optimizer state, by the storages'
        numbers."""
        self._operator: Any = None
        self._site: Site | None = None
        """Where the operator that runs was called; found out when it is first asked for."""
        self._seen: Tensor | None = None
        """What is being looked at."""
        self._inside = False
        """Whether the bytes that are written next are held inside an operator."""
        self._next: Parts | None = None
        """What the bytes consist of that are written next."""
        self._stretch: Parts = ()
        """What the stretch that ended last held at its highest point."""
        self._known: dict[Hashable, tuple[str, Parts]] = {}
        """What work that was followed once held, and the place where it was followed."""
        self._running: list[str] = []
        """The submodules whose forward pass runs, the innermost last."""
        self._parameters: dict[Any, str] = {}
        """The names of the module's parameters, while a step runs."""
        self._forward: dict[int, tuple[Any, Site]] = {}
        """The operator and the site of each autograd node, by its sequence number."""

    def begin(self, operator: Any) -> None:
        """Note which operator runs, and where, if it has made an autograd node."""
        self._operator, self._site = operator, None
        # A node is made before its operator is dispatched, so its number is the last.
        number = torch.autograd._get_sequence_nr() - 1
        if number not in self._forward:
            self._forward[number] = (operator, self._here())

    def see(self, tensor: Tensor) -> None:
        """Write the birth of a tensor's storage, if it is new; of a resized one, the change."""
        self._seen = tensor
        super().see(tensor)
        self._seen = None

    def stop(self) -> int | None:
        """End the stretch as any ledger does, with what it held at its highest point."""
        self._next = self._stretch = self._highest(self._stretches[-1].first_event)
        height = super().stop()
        self._next = None
        return height

    def keep(self, key: Hashable) -> None:
        """Keep, for other places, what the work held that has just been followed."""
        self._known[key] = (self.place, self._stretch)

    def bump(self, n_bytes: int) -> None:
        """Write bytes that come and go at once: what an operator holds inside."""
        self._inside = True
        super().bump(n_bytes)
        self._inside = False

    def bump_again(self, key: Hashable, n_bytes: int) -> None:
        """Write what work holds that was followed before, as it would be at this place."""
        before, parts = self._known[key]
        if before != self.place:
            parts = tuple((_moved(origin, before, self.place), size) for origin, size in parts)
        self._next = parts
        self.bump(n_bytes)
        self._next = None

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Know, during a step, the module that runs, and whose the named tensors are."""
        modules = {id(part): name for name, part in module.named_modules() if name}
        self._parameters = {parameter: name for name, parameter in module.named_parameters()}
        self._name([*module.named_parameters(), *module.named_buffers()])

        def enter(part: nn.Module, _: Any) -> None:
            if id(part) in modules:
                self._running.append(modules[id(part)])

        def leave(part: nn.Module, *_: Any) -> None:
            if id(part) in modules and self._running:
                self._running.pop()

        def stepped(optimizer: Optimizer, *_: Any) -> None:
            for parameter, state in optimizer.state.items():
                owner = self._parameters.get(parameter)
                if owner is not None:
                    self._name([(f"{owner}[{key}]", value) for key, value in state.items()])

        hooks = (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
            register_optimizer_step_post_hook(stepped),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._parameters = {}
            # No backward pass goes beyond its step.
            self._forward.clear()

    def name_gradients(self) -> None:
        """Know whose gradients there are."""
        self._name([(name, parameter.grad) for parameter, name in self._parameters.items()])

    def _name(self, named: Iterable[tuple[str, Any]]) -> None:
        for name, tensor in named:
            number = self.number_of(tensor) if isinstance(tensor, Tensor) else None
            if number is not None:
                self.names.setdefault(number, name)

    def _born(self, n_bytes: int) -> int:
        self.origins.append(self._next or self._origin())
        return super()._born(n_bytes)

    def _origin(self) -> Origin:
        if self._operator is None:
            return _UNKNOWN
        if self._seen is None:
            return Origin(self._operator, self._here(), inside=self._inside)
        return Origin(self._operator, self._here(), tuple(self._seen.shape), self._seen.dtype)

    def _highest(self, first_event: int) -> Parts:
        """Return what was born since an event and lived at the highest point since."""
        deltas = self.deltas[first_event:]
        live = highest = 0
        peak = -1
        for event, delta in enumerate(deltas):
            live += delta
            if live > highest:
                highest, peak = live, event
        alive: dict[int, int] = {}
        for event in range(peak + 1):
            number = self.numbers[first_event + event]
            if deltas[event] > 0:
                alive[number] = deltas[event]
            else:
                alive.pop(number, None)
        return tuple(
            part for number, size in alive.items() for part in parts_of(self.origins[number], size)
        )

    def _here(self) -> Site:
        if self._site is None:
            self._site = self._called_at()
        return self._site

    def _called_at(self) -> Site:
        line, your_line, in_backward, in_python = _lines()
        inner = self._running[-1] if self._running else ""
        module = inner if inner.startswith(self.place) else self.place
        if not in_backward:
            return Site(module, line, your_line)
        operator, forward = self._forward_of(torch._C._current_autograd_node())
        if not in_python:
            return forward._replace(backward_of=operator, recomputed=False)
        if line is None:
            # PyTorch's own modules and functions, on behalf of the line that called them first.
            line, your_line = forward.line, forward.your_line
        # Python code that autograd calls computes gradients, unless it asks for a graph of them.
        return Site(
            module or forward.module,
            line,
            your_line if your_line is not None else forward.your_line,
            recomputed=torch.is_grad_enabled(),
        )

    def _forward_of(self, node: Any) -> tuple[Any, Site]:
        """Return the operator and site that made an autograd node, as far as they are known."""
        if node is None:
            return None, NOWHERE
        found = self._forward.get(node._sequence_nr())
        if found is not None:
            return found
        # A parameter's gradient is added up by a node that no operator has made.
        owner = self._parameters.get(getattr(node, "variable", None), "")
        return node.name().rpartition("::")[2], Site(owner.rpartition(".")[0], None, None)


def parts_of(origin: Origin | Parts, size: int) -> Parts:
    """Return what a storage of so many bytes consists of: itself, where it is a single one."""
    return ((origin, size),) if isinstance(origin, Origin) else origin


def _moved(origin: Origin, before: str, now: str) -> Origin:
    """Return the origin of the same work in another place of the model."""
    module = origin.site.module
    if module != before and not module.startswith(f"{before}."):
        return origin
    return origin._replace(site=origin.site._replace(module=now + module[len(before) :]))


# Frames


_DISPATCH, _PASSED_OVER, _INSTALLED, _OWN, _CALLER = range(5)
"""Whose code a file is: what hands an operator to a dispatch mode; other code of PyTorch's, and
Python's; a package's, as models of this package are too, wherever it lies; nobody's package; what
runs a step, further out of which are the callers of a prediction. Plain numbers, because frames are
looked at by the million."""

_ENGINE = "_engine_run_backward"
_PACKAGES = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")
_TORCH = str(Path(torch.__file__).parent) + os.sep
_PROBES = str(Path(__file__).parents[1]) + os.sep
_PACKAGE = str(Path(__file__).parents[2]) + os.sep
_PYTHON = str(Path(functools.__file__).parent) + os.sep
_DISPATCHERS = tuple(
    _TORCH + name for name in ("_compile.py", "_ops.py", "_dynamo", "utils/_python_dispatch.py")
)

_codes: dict[str, int] = {}


def _code(path: str) -> int:
    """Return whose code a file is, and remember it."""
    if path == profile.__file__:
        found = _CALLER
    elif path.startswith((_PROBES, *_DISPATCHERS)):
        found = _DISPATCH
    elif path.startswith((_TORCH, "<frozen ", "<eval_with_key>")):
        found = _PASSED_OVER
    elif path.startswith(_PACKAGE) or _PACKAGES.match(path):
        found = _INSTALLED
    else:
        found = _PASSED_OVER if path.startswith(_PYTHON) else _OWN
    _codes[path] = found
    return found


_Lines = tuple[Line | None, Line | None, bool, bool]
"""What the frames of an operator say: the innermost line outside PyTorch; where that is in a
package, the innermost outside of any; whether autograd's engine has called it, directly or not; and
whether Python code has, so that the operator itself is not the engine's."""


# From a line's innermost frame to the dispatch of its operator lie at least so many of this file.
_OWN_FRAMES = 5


def _lines() -> _Lines:
    """Look at the frames from an operator outwards, to the engine or to what runs the step.

    What has called the engine says nothing about an operator that it runs.
    """
    line: Line | None = None
    in_python = False
    frame: FrameType | None = sys._getframe(_OWN_FRAMES)
    known = _codes
    while frame is not None:
        code = frame.f_code
        path = code.co_filename
        whose = known.get(path)
        if whose is None:
            whose = _code(path)
        if whose == _PASSED_OVER:
            if code.co_name == _ENGINE:
                return line, None, True, in_python
            in_python = True
        elif whose == _INSTALLED:
            in_python = True
            if line is None:
                line = Line(path, frame.f_lineno, code.co_name)
        elif whose == _OWN:
            own = Line(path, frame.f_lineno, code.co_name)
            yours = None if line is None else own
            return line or own, yours, _under_engine(frame), True
        elif whose == _CALLER:
            break
        frame = frame.f_back
    return line, None, False, True


def _under_engine(frame: FrameType | None) -> bool:
    """Say whether autograd's engine has called a frame."""
    if torch._C._current_autograd_node() is None:
        return False
    while frame is not None:
        if frame.f_code.co_name == _ENGINE:
            return True
        frame = frame.f_back
    return False


def shown_path(path: str) -> str:
    """Return a path as people know it: of a package from its name on, else relative to the current
    folder where that is shorter.
    """
    return _shown_path(path, os.getcwd())


@functools.lru_cache(maxsize=4096)
def _shown_path(path: str, folder: str) -> str:
    if path.startswith(_PACKAGE):
        return os.path.relpath(path, Path(_PACKAGE).parent)
    found = _PACKAGES.match(path)
    if found is not None:
        return path[found.end() :]
    if path.startswith("<"):
        return path
    return min(path, os.path.relpath(path, folder), key=len)
