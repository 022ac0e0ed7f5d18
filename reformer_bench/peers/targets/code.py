"""Factories in a user's own code: imported only where the user names them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from reformer_bench.peers.targets.built import EXAMPLE, Builds, BuiltModel
from reformer_bench.peers.targets.known import recognized
from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.target import TargetConfig, TargetKind, TargetName, hash_of

_SIZES = ("batch", "length")
"""Parameters of a factory that get the case's own sizes."""


def load_factory(config: TargetConfig) -> Builds:
    """Import a target's code, and return what builds the model.

    A factory is a function or class. Its parameters are the target's arguments; one called
    ``length`` or ``batch`` gets the case's. It returns a module, or an object with ``module``,
    ``inputs(batch, length, device)`` and, unless the output has a loss, ``loss(module, inputs)``.

    Raises InputError where there is no such code, where it fails when imported, where its file is
    not the one that the case was made from, or where the arguments are not the factory's.
    """
    name = config.name
    factory = _found(_imported(name, config.sha256), name)
    takes = _parameters(factory)
    _check_arguments(name, takes, config.arguments)
    sizes = set(_SIZES) & set(takes or ()) - config.arguments.keys()

    def build(batch: int, length: int) -> BuiltModel:
        given = {"batch": batch, "length": length}
        try:
            made = factory(**config.arguments, **{size: given[size] for size in sizes})
        except TypeError as error:
            raise InputError(f"{name}: {error}") from error
        return _as_built(name, made)

    return build


def _imported(name: TargetName, sha256: str | None) -> ModuleType:
    try:
        if name.kind is TargetKind.MODULE:
            # As Python itself does for code that is run here.
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(name.place)
        return _run_file(Path(name.place), sha256)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name.kind is TargetKind.MODULE and f"{name.place}.".startswith(f"{missing}."):
            raise InputError(f"{name}: there is no module {missing!r} here") from None
        raise InputError(f"{name}: its code imports {missing!r}, which isn't here") from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{name}: its code fails when imported: {type(error).__name__}: {text[:200]}"
        ) from error


def _run_file(path: Path, sha256: str | None) -> ModuleType:
    now = hash_of(path)
    if sha256 is not None and now != sha256:
        raise InputError(f"{path}: was changed since this case was made from it")
    module_name = f"reformer_bench_target_{now[:12]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, f"{path} ends with .py"
    assert spec.loader is not None, f"{path} ends with .py"
    module = importlib.util.module_from_spec(spec)
    # A file may import its neighbours, and what pickles its classes looks them up by name.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _found(module: ModuleType, name: TargetName) -> Callable[..., Any]:
    found: Any = module
    for part in name.factory.split("."):
        if not hasattr(found, part):
            known = [each for each, value in vars(found).items()
                     if callable(value) and not each.startswith("_")]  # fmt: skip
            raise InputError(f"{name}: {name.place} has no {part!r}{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{name}: is a {type(found).__name__}, not a function or class")
    factory: Callable[..., Any] = found
    return factory


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return a factory's parameters by name; None where Python can't tell."""
    try:
        return dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return None


def _check_arguments(
    name: TargetName, takes: dict[str, inspect.Parameter] | None, arguments: dict[str, Any]
) -> None:
    if takes is None or any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return
    for argument in arguments:
        if argument not in takes:
            allowed = ", ".join(takes) or "none"
            raise InputError(
                f"{name}: takes no argument {argument!r}{did_you_mean(argument, takes)} "
                f"(allowed: {allowed})"
            )
    for each, parameter in takes.items():
        optional = parameter.default is not parameter.empty
        variable = parameter.kind is parameter.VAR_POSITIONAL
        if not (optional or variable or each in arguments or each in _SIZES):
            raise InputError(f"{name}: needs an argument {each!r}: --set args.{each}=…")


def _as_built(name: TargetName, made: Any) -> BuiltModel:
    """Return what a factory made, whole; InputError, with an example, where something lacks."""
    module = made if isinstance(made, nn.Module) else getattr(made, "module", None)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{name}: returned a {type(made).__name__}; expected an nn.Module, or an object with "
            f"module, inputs(batch, length, device) and loss(module, inputs), for example:\n"
            f"{EXAMPLE}"
        )
    inputs: Any = getattr(made, "inputs", None)
    if callable(inputs):
        loss: Any = getattr(made, "loss", None)
        return BuiltModel(
            module,
            inputs,
            # A module of its own may have an attribute of that name, which is no method.
            _own_loss(made, loss) if callable(loss) else None,
            length_name=str(getattr(made, "length_name", "tokens")),
        )
    found = recognized(module)
    if found is None:
        raise InputError(
            f"{name}: what {type(module).__name__}.forward takes can't be told from the module; "
            f"return an object that says it, for example:\n{EXAMPLE}"
        )
    return found


def _own_loss(made: Any, loss: Callable[..., Any]) -> Callable[[nn.Module, Any], Any]:
    """Return the loss as a function of module and inputs; a module's own method may leave itself
    out.
    """
    if made is getattr(made, "module", None) or isinstance(made, nn.Module):
        try:
            taken = len(inspect.signature(loss).parameters)
        except (TypeError, ValueError):
            taken = 2
        if taken == 1:
            return lambda module, inputs: loss(inputs)
    return loss
