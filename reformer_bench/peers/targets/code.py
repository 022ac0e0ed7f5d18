"""Factories in a user's own code: imported only where the user names them."""

from __future__ import annotations

import gc
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from reformer_bench.peers.targets.built import EXAMPLE, Builds, BuiltModel
from reformer_bench.peers.targets.failures import failure_words
from reformer_bench.peers.targets.files import enter_folder, import_file
from reformer_bench.peers.targets.known import recognized
from reformer_bench.schema.errors import InputError, did_you_mean
from reformer_bench.schema.target import TargetConfig, TargetKind, TargetName

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
        enter_folder(_folder(name))
        before = _modules_with_tensors()
        try:
            made = factory(**config.arguments, **{size: given[size] for size in sizes})
        except (TypeError, SystemExit) as error:
            raise InputError(f"{name}: {failure_words(error)}") from error
        built = _as_built(name, made)
        _check_new(name, built.module, before)
        return built

    return build


def _folder(name: TargetName) -> Path:
    """Return where a target's neighbours lie: beside its file, or as for code that Python runs."""
    return Path(name.place).parent if name.kind is TargetKind.FILE else Path.cwd()


def _modules_with_tensors() -> dict[int, nn.Module]:
    """Return every module there is that has parameters or buffers of its own, by its id."""
    # By its type: asking an object for its class may make a lazy one import something.
    found = (each for each in gc.get_objects() if issubclass(type(each), nn.Module))
    return {id(module): module for module in found if _has_tensors(module)}


def _has_tensors(module: nn.Module) -> bool:
    tables = (vars(module).get(name, {}) for name in ("_parameters", "_buffers"))
    return any(tensor is not None for table in tables for tensor in table.values())


def _check_new(name: TargetName, module: nn.Module, before: dict[int, nn.Module]) -> None:
    """Raise InputError where the factory did not make the module: its memory would not be seen."""
    old = next((n for n, each in module.named_modules() if id(each) in before), None)
    if old is not None:
        part = f"module {old!r}" if old else "module"
        raise InputError(
            f"{name}: its {part} was there before the factory was called, so that its memory can't "
            "be counted; make it inside the factory, in __init__ of a class"
        )


def _imported(name: TargetName, sha256: str | None) -> ModuleType:
    try:
        if name.kind is TargetKind.MODULE:
            enter_folder(_folder(name))
            return importlib.import_module(name.place)
        return import_file(Path(name.place), sha256)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name.kind is TargetKind.MODULE and f"{name.place}.".startswith(f"{missing}."):
            raise InputError(f"{name}: there is no module {missing!r} here") from None
        raise InputError(f"{name}: its code imports {missing!r}, which isn't here") from error
    except (Exception, SystemExit) as error:
        words = failure_words(error)
        raise InputError(f"{name}: its code fails when imported: {words}") from error


def _found(module: ModuleType, name: TargetName) -> Callable[..., Any]:
    found: Any = module
    for part in name.factory.split("."):
        if not hasattr(found, part):
            kept = vars(found).items() if hasattr(found, "__dict__") else ()
            known = [each for each, value in kept if callable(value) and not each.startswith("_")]
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
    """Return the loss as a function of module and inputs.

    A module's own method may leave itself out: it takes the inputs, or what ``forward`` takes.
    """
    if not isinstance(made, nn.Module):
        return loss
    try:
        takes = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return loss

    def of_module(module: nn.Module, inputs: Any) -> Any:
        if len(takes) == 1:
            return loss(inputs)
        if takes[:1] == ["module"] or not isinstance(inputs, Mapping | tuple | list):
            return loss(module, inputs)
        return loss(**inputs) if isinstance(inputs, Mapping) else loss(*inputs)

    return of_module
