"""What comes into a recording from outside: tensors made before it, and modules imported meanwhile.

Tensors that the process had before (constants of a module, a cache, a model that is there already)
become fake ones of the same shape. They were allocated before the recording began, so they are not
counted, as a measurement that begins there would not count them either. The parameters and buffers
of a module that ``build`` returns are the exception: they belong to what is predicted.
"""

from __future__ import annotations

import copy
import functools
import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.utils._python_dispatch import _disable_current_modes

from reformer_bench.measure.fake.ledger import StorageLedger
from reformer_bench.measure.fake.reads import refusal
from reformer_bench.measure.fake.values import KnownValues

_CPU = torch.device("cpu")


class OneMode(FakeTensorMode):
    """A mode that copies of its tensors share: ``copy.deepcopy`` of a fake tensor copies all that
    the tensor has, and a mode among it.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> OneMode:
        return self


def has_real(values: Iterable[Any]) -> bool:
    """Say whether there is a real tensor among an operator's arguments."""
    for value in values:
        kind = type(value)
        if kind is FakeTensor:
            continue
        if kind is list or kind is tuple:
            if has_real(value):
                return True
        elif isinstance(value, Tensor) and not isinstance(value, FakeTensor):
            return True
    return False


class Outside:
    """Makes fake tensors of real ones, for one recording."""

    def __init__(self, mode: FakeTensorMode, ledger: StorageLedger, values: KnownValues) -> None:
        self._mode, self._ledger, self._values = mode, ledger, values
        self._fake: dict[int, tuple[weakref.ref[Any], torch.UntypedStorage]] = {}
        """The fake storages of real ones."""

    def exchanged(self, value: Any) -> Any:
        """Return the arguments of an operator, with fake tensors in the place of real ones.

        Raises NotPredictableError for a real tensor that requires gradients: its gradient would be
        left on it.
        """
        if isinstance(value, FakeTensor):
            return value
        if isinstance(value, Tensor):
            return self._faked(value)
        if isinstance(value, tuple | list):
            return type(value)([self.exchanged(item) for item in value])
        return value

    def _faked(self, real: Tensor) -> Tensor:
        if real.layout is not torch.strided or real.device != _CPU:
            return real
        if real.requires_grad and torch.is_grad_enabled():
            raise refusal(
                "a real tensor that requires gradients is used",
                "make it inside build() or step(), or return the module that it belongs to from "
                "build()",
            )
        storage = real.untyped_storage()
        key = storage._cdata
        found = self._fake.get(key)
        made = torch.UntypedStorage(storage.nbytes(), device="meta") if found is None else found[1]
        shape = (int(real.storage_offset()), real.shape, real.stride())
        with in_kernel_invocation_manager(self._mode):
            like = torch.empty((), dtype=real.dtype, device="meta").set_(made, *shape)
        fake = FakeTensor(self._mode, like, _CPU)
        if found is None:
            gone = weakref.ref(storage, lambda _: self._fake.pop(key, None))
            self._fake[key] = (gone, made)
            self._ledger.pass_over(fake)
            self._values.learn(fake, real)
        return fake

    def module(self, module: nn.Module) -> nn.Module:
        """Return the module, or where parameters of it are real a copy with fake ones of the same
        shapes, and with fake buffers; they are counted as if they were made now.
        """
        if not any(map(_is_real, module.parameters())):
            return module
        copies: dict[int, Any] = {}
        for part in module.modules():
            # Tensors that belong to a module only by an attribute stay what they are.
            attributes = (value for value in vars(part).values() if isinstance(value, Tensor))
            copies.update((id(value), value) for value in attributes)
        for tensor in (*module.parameters(), *module.buffers()):
            fake = tensor
            if _is_real(tensor):
                fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                self._values.learn(fake, tensor)
            if isinstance(tensor, nn.Parameter) and fake is not tensor:
                self._values.forget(fake)
                fake = nn.Parameter(fake, tensor.requires_grad)
            copies[id(tensor)] = fake
        return copy.deepcopy(module, copies)


def _is_real(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor)


class _ImportingFinder(MetaPathFinder):
    """Lets modules that are imported run as if nothing were recorded.

    What they define once for the process (constants, operators) must not be fake.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None
            if finder is not self and find is not None:
                spec = find(name, path, target)
            if spec is not None:
                _run_unrecorded(spec)
                return spec
        return None


def _run_unrecorded(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    # Built-in modules are loaded by classes, and have nothing to do with tensors.
    if loader is None or isinstance(loader, type) or not hasattr(loader, "exec_module"):
        return
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        vars(loader).pop("exec_module", None)
        with _disable_current_modes():
            execute(module)

    loader.exec_module = exec_module


@contextmanager
def imports_unrecorded() -> Iterator[None]:
    """Let modules that are imported inside run as if nothing were recorded."""
    with _disable_current_modes():
        pass  # Imports what it needs itself, which it could not while a module is imported.
    finder = _ImportingFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def arrays_answered(answer: Callable[[Tensor], Any]) -> Iterator[None]:
    """Let ``numpy()`` of fake tensors return what ``answer`` says inside."""

    def numpy(self: Tensor, *, force: bool = False) -> Any:
        return answer(self)

    # Torch refuses it for every subclass that has none of its own, and asks no mode.
    before = vars(FakeTensor).get("numpy")
    FakeTensor.numpy = numpy  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        if before is None:
            del FakeTensor.numpy
        else:
            FakeTensor.numpy = before  # type: ignore[method-assign]


def clear_caches_of_fake_tensors() -> None:
    """Empty the caches of functions (``functools.lru_cache``) that hold fake tensors.

    What runs after a prediction would be given them, and fail.
    """
    for cached in gc.get_objects():
        if type(cached) is _CACHED_FUNCTION and _holds_fake(cached):
            cached.cache_clear()


_CACHED_FUNCTION = type(functools.lru_cache(maxsize=None)(len))
_DEPTH_OF_RESULTS = 4
"""A cache holds its table, the table its entries, an entry a result, a result tensors."""


def _holds_fake(holder: Any, depth: int = _DEPTH_OF_RESULTS) -> bool:
    if isinstance(holder, FakeTensor):
        return True
    if depth == 0 or isinstance(holder, ModuleType | type | FunctionType):
        return False
    return any(_holds_fake(inner, depth - 1) for inner in gc.get_referents(holder))
