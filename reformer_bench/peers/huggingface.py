"""Turns transformers' Reformers into ours, weights included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reformer_bench.model import ReformerLM
from reformer_bench.peers.huggingface_config import native_fields, read_config, with_buckets
from reformer_bench.peers.installed import check_installed
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.model import ModelConfig, Positions

_CLASSES = ("ReformerModelWithLMHead", "ReformerForMaskedLM")

_LAYER_NAMES = {
    "attention.norm.weight": "attention.layer_norm.weight",
    "attention.norm.bias": "attention.layer_norm.bias",
    "attention.output.weight": "attention.output.dense.weight",
    "feed_forward.norm.weight": "feed_forward.layer_norm.weight",
    "feed_forward.norm.bias": "feed_forward.layer_norm.bias",
    "feed_forward.inner.weight": "feed_forward.dense.dense.weight",
    "feed_forward.inner.bias": "feed_forward.dense.dense.bias",
    "feed_forward.outer.weight": "feed_forward.output.dense.weight",
    "feed_forward.outer.bias": "feed_forward.output.dense.bias",
}
"""Our names inside a layer, with theirs; projections are named alike."""


def to_native(hf_model: Any, length: int | None = None) -> ReformerLM:
    """Build our model that computes what one of transformers' Reformers computes.

    The weights are copied; device, dtype and training mode stay the same. With a ``hash_seed`` in
    the config both hash alike, and the logits agree to rounding. Dropout is drawn differently:
    ``huggingface_config.differences`` says how.

    Args:
        hf_model: A ReformerModelWithLMHead or a ReformerForMaskedLM.
        length: How many tokens the first sequence has that the model is to see. It is needed only
            where the config has ``num_buckets`` = None and the model has seen no sequence yet:
            transformers chooses the number of LSH buckets by that sequence.

    Returns:
        Our model, on the same device.

    Raises:
        ValueError: The model is of another class, or its config holds something that can't be
            converted; the text names the key.
    """
    kind = type(hf_model).__name__
    if kind not in _CLASSES:
        raise ValueError(f"expected a {' or a '.join(_CLASSES)}, got a {kind}")
    settings = {**hf_model.config.to_dict(), "dtype": str(hf_model.dtype).removeprefix("torch.")}
    if length is not None:
        settings = with_buckets(settings, length)
    return with_weights_of(ModelConfig(**native_fields(settings)), hf_model)


def with_weights_of(config: ModelConfig, hf_model: Any) -> ReformerLM:
    """Build our model of a config with the weights of one of transformers' models.

    Raises RuntimeError from torch where the shapes that the config asks for are not the weights'.
    """
    with torch.device("meta"):
        native = ReformerLM(config)
    native.to_empty(device="cpu")
    native.load_state_dict(native_state(hf_model, config))
    native.place(hf_model.device)
    return native.train(hf_model.training)


def load_checkpoint(folder: Path, config: ModelConfig) -> ReformerLM:
    """Build our model of a config with the weights of a folder saved by transformers, on the CPU.

    Nothing is fetched from anywhere.

    Raises:
        InputError: The library is missing, or the folder or its weights can't be read.
        RuntimeError: As in ``with_weights_of``.
    """
    saved = read_config(folder)
    check_installed("transformers")
    import transformers
    from safetensors import SafetensorError

    kind = getattr(transformers, _CLASSES[0] if saved["is_decoder"] else _CLASSES[1])
    try:
        hf_model = kind.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model.checkpoint = {str(folder)!r}: {reason}") from None
    return with_weights_of(config, hf_model)


def native_state(hf_model: Any, config: ModelConfig) -> dict[str, Tensor]:
    """Return the state_dict of our model, from the weights of theirs."""
    theirs = {name: p.detach() for name, p in hf_model.named_parameters()}
    embeddings, encoder = "reformer.embeddings", "reformer.encoder"
    # Where the decoder has no bias of its own, lm_head.bias exists but is never added.
    bias = hf_model.lm_head.decoder.bias
    state = {
        "embedding.tokens.weight": theirs[f"{embeddings}.word_embeddings.weight"],
        "output.norm.weight": theirs[f"{encoder}.layer_norm.weight"],
        "output.norm.bias": theirs[f"{encoder}.layer_norm.bias"],
        "output.head.weight": theirs["lm_head.decoder.weight"],
        "output.head.bias": torch.zeros(config.vocab_size) if bias is None else bias.detach(),
    }
    positions = f"{embeddings}.position_embeddings"
    if config.positions is Positions.AXIAL:
        for axis in (0, 1):
            table = theirs[f"{positions}.weights.{axis}"]
            state[f"embedding.positions.{axis}"] = table.reshape(-1, table.shape[-1])
    else:
        state["embedding.positions.0"] = theirs[f"{positions}.embedding.weight"]
    for layer in range(config.n_layers):
        names = dict(_LAYER_NAMES)
        shared = config.shares_qk(layer)
        for name in ("query_key", "value") if shared else ("query", "key", "value"):
            names[f"attention.{name}.weight"] = f"attention.self_attention.{name}.weight"
        for ours, name in names.items():
            state[f"layers.{layer}.{ours}"] = theirs[f"{encoder}.layers.{layer}.{name}"]
    return state
