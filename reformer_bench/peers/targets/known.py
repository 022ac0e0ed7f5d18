"""What a module's forward pass takes, where its library says so: models of transformers and timm.

B batch, L length.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from reformer_bench.peers.targets.built import BuiltModel
from reformer_bench.schema.errors import InputError

_BY_SEQUENCE = ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification")
_BY_TOKEN = (
    "ForCausalLM",
    "LMHeadModel",
    "MTModel",
    "ForConditionalGeneration",
    "ForMaskedLM",
    "ForPreTraining",
    "ForTokenClassification",
    "WithLMHead",
    "WithLMHeadModel",
)
"""What the names of transformers' classes say of their labels: one a sequence, or one a token."""


def recognized(module: nn.Module) -> BuiltModel | None:
    """Return a module with its inputs and loss, where its library tells them; None elsewhere."""
    if _is_of(module, "transformers", "PreTrainedModel"):
        return of_transformers(module)
    settings: Any = getattr(module, "pretrained_cfg", None)
    shape = settings.get("input_size") if isinstance(settings, dict) else None
    if shape is None:
        return None
    channels = int(shape[0])

    def images(batch: int, length: int, device: torch.device) -> torch.Tensor:
        return torch.randn(batch, channels, length, length, device=device)

    return BuiltModel(module, images, length_name="pixels a side")


def _is_of(module: nn.Module, library: str, base: str) -> bool:
    """Say whether a module's class comes of a library's base class, without importing it."""
    return any(
        each.__name__ == base and each.__module__.partition(".")[0] == library
        for each in type(module).__mro__
    )


def of_transformers(module: Any, settings: dict[str, str] | None = None) -> BuiltModel:
    """Return a model of transformers with random inputs of its kind, and the labels that its head
    takes.

    Raises InputError for kinds of input that are not known.
    """
    takes = frozenset(inspect.signature(module.forward).parameters)
    main = str(getattr(module, "main_input_name", "input_ids"))
    length_names = {
        "input_ids": "tokens",
        "pixel_values": "pixels a side",
        "input_values": "samples",
        "input_features": "frames",
    }
    if main not in length_names:
        raise InputError(
            f"{type(module).__name__} takes {main!r}, which random inputs aren't known for; return "
            "an object with module, inputs(batch, length, device) and loss(module, inputs)"
        )
    if main == "input_ids" and "pixel_values" in takes and "labels" in takes:
        # Text alone is a complete input of models that take pictures beside it.
        takes -= {"pixel_values"}

    def inputs(batch: int, length: int, device: torch.device) -> dict[str, Any]:
        found: dict[str, Any] = {main: _main_input(module, main, batch, length, device)}
        labels = _labels(module, takes, main, batch, length, device)
        if labels is not None:
            found["labels"] = labels
        elif "decoder_input_ids" in takes and getattr(module.config, "is_encoder_decoder", False):
            count = _decoder_length(module, main, length)
            found["decoder_input_ids"] = _tokens(module, batch, count, device)
        if "use_cache" in takes:
            found["use_cache"] = False
        return found

    def inference(given: dict[str, Any], cache: bool) -> dict[str, Any]:
        if cache and "use_cache" not in takes:
            raise InputError(f"eval.cache: {type(module).__name__} has no use_cache")
        kept = {key: value for key, value in given.items() if key not in ("labels", "use_cache")}
        if "labels" in given and "decoder_input_ids" in takes and main != "input_values":
            # Without labels, the decoder is told what it has said so far.
            kept["decoder_input_ids"] = given["labels"]
        return kept | ({"use_cache": cache} if "use_cache" in takes else {})

    return BuiltModel(
        module,
        inputs,
        length_name=length_names[main],
        inference=inference,
        settings={"class": type(module).__name__, **(settings or {})},
    )


def _main_input(
    module: Any, main: str, batch: int, length: int, device: torch.device
) -> torch.Tensor:
    """Return random tokens [B, L], images [B, C, L, L], sound [B, L] or features [B, F, L]."""
    config = module.config
    if main == "input_ids":
        return _tokens(module, batch, length, device)
    if main == "pixel_values":
        channels = _first(config, "num_channels", "in_channels", default=3)
        return torch.randn(batch, channels, length, length, device=device)
    if main == "input_values":
        return torch.randn(batch, length, device=device)
    features = _first(config, "num_mel_bins", "input_feat_per_channel", default=80)
    return torch.randn(batch, features, length, device=device)


def _labels(
    module: Any, takes: frozenset[str], main: str, batch: int, length: int, device: torch.device
) -> torch.Tensor | None:
    """Return the labels of the model's head; None where it has none or they aren't known."""
    name = type(module).__name__
    if "labels" not in takes:
        return None
    if name.endswith(_BY_SEQUENCE):
        return torch.randint(module.config.num_labels, (batch,), device=device)
    if name.endswith("ForTokenClassification"):
        return torch.randint(module.config.num_labels, (batch, length), device=device)
    if name.endswith("ForSemanticSegmentation"):
        shape = (batch, length, length)
        return torch.randint(module.config.num_labels, shape, device=device)
    if name.endswith("ForCTC"):
        # Fewer than there are frames, as the loss wants it.
        return _tokens(module, batch, 8, device, first=1)
    if name.endswith(_BY_TOKEN):
        return _tokens(module, batch, _decoder_length(module, main, length), device)
    return None


def _decoder_length(module: Any, main: str, length: int) -> int:
    """Return how many tokens a decoder gets: as many as the encoder, or as sound allows."""
    if main == "input_ids":
        return length
    most: int = _first(module.config, "max_target_positions", default=length)
    return min(length, most)


def _tokens(
    module: Any, batch: int, length: int, device: torch.device, first: int = 0
) -> torch.Tensor:
    config = module.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = _first(text, "vocab_size", default=None) or _first(config, "vocab_size", default=None)
    if size is None:
        raise InputError(
            f"the config of {type(module).__name__} has no vocab_size to draw tokens from"
        )
    return torch.randint(first, size, (batch, length), device=device)


def _first(config: Any, *names: str, default: Any) -> Any:
    """Return the first of some fields that a config has."""
    return next((v for n in names if (v := getattr(config, n, None)) is not None), default)
