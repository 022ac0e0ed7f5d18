"""Imports a user's own files, each with the neighbours that lie in its folder."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

from reformer_bench.schema.errors import InputError, why

_before: frozenset[str] | None = None
"""The names of the modules that were there before any folder was entered."""
_entered: Path | None = None
_kept: dict[Path, dict[str, ModuleType]] = {}
"""The neighbours that were imported from folders entered before."""


def enter_folder(folder: Path) -> None:
    """Have imports look into a folder first, and no longer into the one entered before.

    Two targets may have neighbours of one name (``layers.py``), so that what was imported from one
    folder must not be found by code of the other.
    """
    global _before, _entered
    folder = folder.resolve()
    if _before is None:
        _before = frozenset(sys.modules)
    if folder == _entered:
        return
    if _entered is not None:
        _kept[_entered] = _neighbours(_entered, _before)
        for name in _kept[_entered]:
            del sys.modules[name]
        if str(_entered) in sys.path:
            sys.path.remove(str(_entered))
    sys.path.insert(0, str(folder))
    sys.modules.update(_kept.pop(folder, {}))
    # A file that has just been written may be younger than what was remembered of its folder.
    importlib.invalidate_caches()
    _entered = folder


def _neighbours(folder: Path, before: frozenset[str]) -> dict[str, ModuleType]:
    """Return the modules that lie directly in a folder, and what lies in its packages."""

    def lies_there(name: str) -> bool:
        first = name.partition(".")[0]
        file = getattr(sys.modules.get(first), "__file__", None)
        if first in before or file is None:
            return False
        place = Path(file)
        return folder in (place.parent, place.parent.parent if place.stem == "__init__" else None)

    return {name: module for name, module in list(sys.modules.items()) if lies_there(name)}


def import_file(path: Path, sha256: str | None) -> ModuleType:
    """Run a file as a module, once a process, in its folder.

    What is run is what was hashed, whatever becomes of the file meanwhile.

    Raises InputError where it can't be read, or where its content is not that of the hash.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({why(error)}); expected the file of a model"
        ) from None
    if sha256 is not None and hashlib.sha256(source).hexdigest() != sha256:
        raise InputError(f"{path}: was changed since this case was made from it")
    full = path.resolve()
    enter_folder(full.parent)
    digest = hashlib.sha256(str(full).encode() + b"\0" + source).hexdigest()
    name = f"reformer_bench_target_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(full)
    # Classes are looked up there by what pickles them, and by dataclasses.
    sys.modules[name] = module
    try:
        exec(compile(source, str(full), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
