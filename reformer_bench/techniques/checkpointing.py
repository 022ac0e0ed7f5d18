"""Gradient checkpointing of any module: parts of it run again in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reformer_bench.schema.errors import InputError

OWN_METHOD = "model"
"""The pattern that stands for the model's own way of checkpointing."""
_MOST_NAMES = 8


def checkpoint_gradients(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Have parts of a module keep their inputs only, and run again in the backward pass.

    Args:
        module: Its submodules are changed in place.
        patterns: Of submodules' dotted names, as ``layers.*``; of a submodule inside one that
            matches, the outer one counts. Or ``model`` alone: the module's own method, which is
            ``gradient_checkpointing_enable`` (transformers) or ``set_grad_checkpointing`` (timm).

    Returns:
        The names of the submodules that were changed; nothing where the module's own method was
        called.

    Raises:
        InputError: The module has no method of its own, or a pattern matches nothing.
    """
    if tuple(patterns) == (OWN_METHOD,):
        _call_own_method(module)
        return []
    chosen: list[str] = []
    for pattern in patterns:
        found = [n for n, _ in module.named_modules() if n and fnmatchcase(n, pattern)]
        if not found:
            names = [name for name, _ in module.named_modules() if name]
            more = f", … ({len(names)} in all)" if len(names) > _MOST_NAMES else ""
            raise InputError(
                f"train.gradient_checkpointing: no module's name matches {pattern!r} (they are: "
                f"{', '.join(names[:_MOST_NAMES])}{more})"
            )
        chosen += found
    outer = [name for name in dict.fromkeys(chosen) if not _inside_any(name, chosen)]
    for name in outer:
        _wrap(module.get_submodule(name))
    return outer


def _inside_any(name: str, names: Sequence[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in names)


def _call_own_method(module: nn.Module) -> None:
    enable: Any = getattr(module, "gradient_checkpointing_enable", None)
    if enable is None:
        enable = getattr(module, "set_grad_checkpointing", None)
    if enable is None:
        raise InputError(
            "train.gradient_checkpointing = 'model': the model has neither "
            "gradient_checkpointing_enable() nor set_grad_checkpointing(); give patterns of module "
            "names instead, as 'layers.*'"
        )
    try:
        enable()
    except (ValueError, NotImplementedError, AssertionError) as error:
        raise InputError(
            f"train.gradient_checkpointing = 'model': the model refuses ({error})"
        ) from None


def _wrap(module: nn.Module) -> None:
    forward = module.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    # Hooks of the module stay around it: only what runs inside is repeated.
    module.forward = run
