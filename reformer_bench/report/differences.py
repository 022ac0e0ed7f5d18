"""What models differ in, in plain words: ``local attention, reversible, 16 chunks``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from reformer_bench.spec.model import Attention, ModelConfig

ATTENTIONS = {
    "full": "full attention",
    "memory_efficient": "memory-efficient attention",
    "sdpa": "fused attention (SDPA)",
    "local": "local attention",
    "lsh": "LSH attention",
}
RESIDUALS = {
    "standard": "standard residual",
    "checkpointed": "checkpointed",
    "reversible": "reversible",
}
_WORDS: dict[str, Callable[[Any], str]] = {
    "attention": lambda kinds: " + ".join(ATTENTIONS[kind] for kind in kinds),
    "d_model": lambda n: f"d_model {n}",
    "n_layers": lambda n: f"{n} layer{'s' * (n > 1)}",
    "d_ff": lambda n: f"d_ff {n}",
    "n_hashes": lambda n: f"{n} hash{'es' * (n > 1)}",
    "residual": lambda kind: RESIDUALS[kind],
    "ff_chunks": lambda n: "in one piece" if n == 1 else f"in {n} chunks",
    "parameter_offload": lambda where: (
        ("resident" if where == "none" else "swapped") + " parameters"
    ),
    "dtype": lambda name: "" if name == "float32" else name,
}
_FOLLOWS = {
    "d_ff": "d_model",
    "n_heads": "d_model",
    "d_head": "d_model",
    "loss_chunks": "ff_chunks",
    "head_groups": "attention",
    "shared_qk": "attention",
    "axial_dims": "d_model",
}
"""Fields that are left unsaid where another one differs that they go with."""


def differences(models: Sequence[ModelConfig], unsaid: Collection[str | None]) -> list[str]:
    """The words of each model: all fields in which some of the models differ, but ``unsaid``."""
    names = [
        name for name in (*_WORDS, *_others()) if name not in unsaid and _differs(models, name)
    ]
    told = [name for name in names if _FOLLOWS.get(name) not in names]
    return [", ".join(filter(None, (_words(m, name) for name in told))) for m in models]


def _others() -> list[str]:
    return [name for name in ModelConfig.model_fields if name not in _WORDS]


def _differs(models: Sequence[ModelConfig], name: str) -> bool:
    return len({getattr(model, name) for model in models}) > 1


def _words(model: ModelConfig, name: str) -> str:
    if name == "n_hashes" and Attention.LSH not in model.attention:
        return ""
    value = getattr(model, name)
    return _WORDS[name](value) if name in _WORDS else f"{name} {value}"
