"""What each memory technique for long-sequence Transformers costs and saves, measured.

What a notebook uses is here by its own name, and is imported when it is first asked for: importing
the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer_bench.measure.peak import record_peak
    from reformer_bench.measure.predict import predict
    from reformer_bench.model.lm import ReformerLM
    from reformer_bench.schema.model import ModelConfig, preset
    from reformer_bench.store import load_run as load

__version__ = "0.1.0"

__all__ = ["ModelConfig", "ReformerLM", "__version__", "load", "predict", "preset", "record_peak"]

_HOMES = {
    "ModelConfig": ("schema.model", "ModelConfig"),
    "ReformerLM": ("model.lm", "ReformerLM"),
    "load": ("store", "load_run"),
    "predict": ("measure.predict", "predict"),
    "preset": ("schema.model", "preset"),
    "record_peak": ("measure.peak", "record_peak"),
}
"""For each name its module inside the package, and its name there."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return list(__all__)
