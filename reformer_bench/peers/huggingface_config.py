"""Says in the fields of our ModelConfig what a transformers ReformerConfig says; needs no torch.

``config`` is the mapping of a config.json, or of ``ReformerConfig.to_dict()``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from reformer_bench.schema.errors import InputError, reading
from reformer_bench.schema.model import Dtype

SHAPING = (
    "vocab_size",
    "d_model",
    "n_layers",
    "n_heads",
    "d_head",
    "d_ff",
    "attention",
    "residual",
    "merge_streams",
    "positions",
    "max_length",
    "axial_shape",
    "axial_dims",
)
"""The fields that the weights themselves decide; any other may be changed beside a checkpoint."""

_CHOSEN_BY_THE_SUITE = ("ff_chunks", "loss_chunks", "dtype")
"""The fields that say how a model is computed, not which model it is."""


def native_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the ModelConfig that computes the same, as JSON values.

    ``differences`` says what still differs while training.

    Args:
        config: What the ReformerConfig says; ``num_buckets`` must be a number (``with_buckets``).

    Returns:
        Values by field; fields that are left out have their defaults.

    Raises:
        ValueError: A key of ``config`` has a value that our model has no switch for; the text
            names both.
    """
    _check(config)
    layers = list(config["attn_layers"])
    fields = {
        "vocab_size": config["vocab_size"],
        "d_model": config["hidden_size"],
        "n_layers": len(layers),
        "n_heads": config["num_attention_heads"],
        "d_head": config["attention_head_size"],
        "d_ff": config["feed_forward_size"],
        "activation": config["hidden_act"],
        "attention": layers,
        "causal": bool(config["is_decoder"]),
        "shared_qk": False,
        "shared_qk_scale": "none",
        "local_chunk_length": config["local_attn_chunk_length"],
        "chunk_length": config["lsh_attn_chunk_length"],
        "n_hashes": config["num_hashes"],
        "n_buckets": config["num_buckets"] if "lsh" in layers else None,
        "attend_across_buckets": True,
        "count_duplicates": True,
        "look_back": "ring",
        "lone_tokens": "rounded",
        "hash_seed": config["hash_seed"],
        "residual": "reversible",
        # As theirs: a trained model's activations may leave the range of fixed-point streams.
        "streams": "float",
        "merge_streams": "concat",
        "dropout": config["hidden_dropout_prob"],
        "norm_epsilon": config["layer_norm_eps"],
        "dtype": config.get("dtype") or "float32",
        **_positions(config),
    }
    for field, key in (
        ("ff_chunks", "chunk_size_feed_forward"),
        ("loss_chunks", "chunk_size_lm_head"),
    ):
        size = config.get(key) or 0
        fields[field] = math.ceil(fields["max_length"] / size) if size else 1
    return fields


def with_buckets(config: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return the config with its number of buckets settled as transformers settles it.

    Where ``num_buckets`` is None, transformers chooses it by the first sequence that the model
    sees and keeps it from then on: the power of two next below 2 · length / chunk length, as two
    factors where that is large. ``length`` counts the tokens of that sequence.

    Raises:
        ValueError: The sequence is no longer than one chunk, for which nothing is chosen.
    """
    chunk = config["lsh_attn_chunk_length"]
    if config["num_buckets"] is not None or "lsh" not in config["attn_layers"]:
        return dict(config)
    if length <= chunk:
        # One chunk is attended to in full, and leaves the choice to the first longer sequence.
        raise ValueError(
            f"length = {length}: transformers chooses num_buckets only for a sequence longer than "
            f"one chunk of {chunk} tokens"
        )
    # They pad a sequence to whole chunks of every kind in evaluation, before they choose.
    step = math.lcm(*(config[f"{kind}_attn_chunk_length"] for kind in set(config["attn_layers"])))
    exponent = (2 * (math.ceil(length / step) * step // chunk)).bit_length() - 1
    largest = 2 * max(int((config["max_position_embeddings"] // chunk) ** 0.5), chunk)
    if 2**exponent <= largest:
        return {**config, "num_buckets": 2**exponent}
    first = exponent // 2
    return {**config, "num_buckets": [2**first, 2 ** (exponent - first)]}


def differences(config: Mapping[str, Any]) -> list[str]:
    """Say what our model of ``native_fields`` does otherwise in training; in evaluation it does
    nothing otherwise.
    """
    found = []
    if config["hidden_dropout_prob"]:
        found.append("dropout after each sublayer, not inside feed-forward layers and the head")
    for kind in dict.fromkeys(config["attn_layers"]):
        key = f"{kind}_attention_probs_dropout_prob"
        if config.get(key):
            found.append(f"no dropout of attention probabilities ({key} = {config[key]})")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a folder that transformers saved a Reformer into.

    Raises InputError where there is none, or where it is another model's.
    """
    where = f"model.checkpoint = {str(folder)!r}"
    file = folder / "config.json"
    with reading(file, "a config.json that transformers wrote"):
        if not folder.is_dir():
            raise InputError(f"{where}: there is no such folder")
        if not os.path.lexists(file):
            raise InputError(f"{where}: holds no config.json, so transformers did not save it")
        text = file.read_text(encoding="utf-8")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: config.json is not JSON ({error})") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "reformer":
        raise InputError(f"{where}: holds a model of type {kind!r}, expected 'reformer'")
    return cast(dict[str, Any], config)


def checkpoint_fields(folder: Path) -> dict[str, Any]:
    """Return ``native_fields`` of a saved model, without those that a suite is there to choose.

    Raises InputError for what can't be measured.
    """
    config = read_config(folder)
    try:
        fields = native_fields(config)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"config.json lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"model.checkpoint = {str(folder)!r}: {reason}") from None
    return {field: value for field, value in fields.items() if field not in _CHOSEN_BY_THE_SUITE}


def _check(config: Mapping[str, Any]) -> None:
    """Raise ValueError for the first key that says something ours has no switch for."""
    layers = list(config["attn_layers"])
    if not layers or not set(layers) <= {"lsh", "local"}:
        raise ValueError(f"attn_layers = {layers}: expected 'lsh' and 'local' only")
    for kind in dict.fromkeys(layers):
        for key, expected in ((f"{kind}_num_chunks_before", 1), (f"{kind}_num_chunks_after", 0)):
            if config[key] != expected:
                raise ValueError(
                    f"{key} = {config[key]}: chunks here see one chunk before and none after, so "
                    f"only {expected} can be converted"
                )
    if config["hidden_act"] not in ("gelu", "relu"):
        raise ValueError(f"hidden_act = {config['hidden_act']!r}: expected 'gelu' or 'relu'")
    if "lsh" in layers and config["num_buckets"] is None:
        raise ValueError(
            "num_buckets = None: transformers chooses it by the first sequence it sees; set it in "
            "the model's config, or say that sequence's length (to_native's argument)"
        )
    dtypes = get_args(Dtype)
    if (config.get("dtype") or "float32") not in dtypes:
        raise ValueError(f"dtype = {config['dtype']!r}: expected one of {', '.join(dtypes)}")


def _positions(config: Mapping[str, Any]) -> dict[str, Any]:
    longest = config["max_position_embeddings"]
    if not config["axial_pos_embds"]:
        return {"positions": "learned", "max_length": longest}
    shape, dims = list(config["axial_pos_shape"]), list(config["axial_pos_embds_dim"])
    if len(shape) != 2:
        raise ValueError(f"axial_pos_shape = {shape}: expected two axes")
    return {
        "positions": "axial",
        "max_length": min(longest, math.prod(shape)),
        "axial_shape": shape,
        "axial_dims": dims,
    }
