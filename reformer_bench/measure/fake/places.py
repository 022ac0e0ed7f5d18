"""Notes which module is running its forward pass, so that memory can be told apart by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from reformer_bench.measure.fake.recording import FakeRecording


@contextmanager
def places_of(recording: FakeRecording, root: nn.Module) -> Iterator[None]:
    """Count what a submodule's forward pass allocates to the submodule's dotted name.

    Plain leaves (an activation, a projection) count to the module around them.
    """
    names = {
        id(module): name
        for name, module in root.named_modules()
        if name and next(module.children(), None) is not None
    }
    running: list[Any] = []

    def enter(module: nn.Module, _: Any) -> None:
        if id(module) in names:
            running.append(place := recording.at(names[id(module)]))
            place.__enter__()

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in names and running:
            running.pop().__exit__(None, None, None)

    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
