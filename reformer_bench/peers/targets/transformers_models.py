"""Models of transformers by type or by a saved configuration, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reformer_bench.peers.installed import check_installed, library_version
from reformer_bench.peers.targets.built import Builds, BuiltModel
from reformer_bench.peers.targets.known import of_transformers
from reformer_bench.peers.targets.quiet import errors_only
from reformer_bench.schema.errors import InputError, did_you_mean, read_text
from reformer_bench.schema.target import TargetConfig, hash_of, is_path

_HEADS = (
    ("is_encoder_decoder", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    ("is_encoder_decoder", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    (None, "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    (None, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    (None, "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    (None, "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES"),
    (None, "MODEL_FOR_CTC_MAPPING_NAMES"),
    (None, "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
    (None, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
    (None, "MODEL_MAPPING_NAMES"),
)
"""Where to look for the class of a type that names none, the field of its configuration that has to
be set first."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
"""Fields that bound a sequence."""
_BEYOND = ("attn_implementation", "num_labels", "decoder_start_token_id")
"""Fields that may be set although a configuration has none of that name by default."""
_SPECIAL = 2
"""Some models have position tables that begin this many rows later."""


def load_transformers(config: TargetConfig) -> Builds:
    """Import what a type of model needs, and return what builds it, with random weights.

    A bound on positions that is less than the length is raised to it, and the record says so; one
    that the user set is kept. A picture's side and the frames of sound are set alike.

    Raises InputError where transformers isn't here, where there is no such type or field, or where
    the saved configuration can't be read.
    """
    try:
        check_installed("transformers")
    except InputError:
        raise InputError(
            f"{config.name}: transformers is not installed: pip install 'reformer-bench[peers]'"
        ) from None
    name = config.name
    saved = _saved(config) if is_path(name.place) else {"model_type": name.place}
    fields = _merged(saved, config.arguments)
    model_class = _class_of(config, _made(config, fields))
    made_of = {**config.arguments}

    @errors_only()
    def build(batch: int, length: int) -> BuiltModel:
        changed, words = _fitted(config, fields, made_of, length)
        if getattr(model_class, "main_input_name", None) == "pixel_values":
            changed, said = _fitted_vision(config, changed, length)
            words |= said
        module = model_class(_made(config, changed))
        settings = {"library": library_version("transformers"), **words}
        return of_transformers(module, settings)

    return build


def import_type(model_type: str) -> None:
    """Import what building and running a type of transformers' models needs.

    Raises InputError where there is no such type.
    """
    check_installed("transformers")
    config = TargetConfig(target=f"hf:{model_type}")
    _class_of(config, _made(config, {"model_type": model_type}))


def _saved(config: TargetConfig) -> dict[str, Any]:
    path = config.name.path
    assert path is not None
    if config.sha256 is not None and hash_of(path) != config.sha256:
        raise InputError(f"{path}: was changed since this case was made from it")
    try:
        saved = json.loads(read_text(path, "a configuration of transformers"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("model_type"), str):
        raise InputError(f"{path}: has no 'model_type', which a configuration of transformers has")
    if "auto_map" in saved and saved["model_type"] not in _types():
        raise InputError(
            f"{path}: needs code of its own (auto_map), which is never run from a configuration; "
            "import it in a file of yours, and name a factory there: --model FILE.py:FACTORY"
        )
    return saved


def _types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return list(CONFIG_MAPPING.keys())


def _merged(saved: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's fields with the user's over them, table by table."""
    merged = dict(saved)
    for key, value in arguments.items():
        inner = merged.get(key)
        if isinstance(value, dict):
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _made(config: TargetConfig, fields: dict[str, Any]) -> Any:
    """Return transformers' own configuration object."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = fields["model_type"]
    if kind not in _types():
        hint = did_you_mean(kind, _types())
        if Path(kind).exists():
            hint = f"; what lies here under this name is hf:./{kind}"
        raise InputError(f"{config.name}: transformers has no type of model {kind!r}{hint}")
    rest = {key: value for key, value in fields.items() if key != "model_type"}
    kind_of_config = CONFIG_MAPPING[kind]
    try:
        known = kind_of_config()
        _check_fields(config, known, config.arguments)
        return kind_of_config(**rest)
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(f"{config.name}: config: {type(error).__name__}: {text[:200]}") from None


def _check_fields(config: TargetConfig, known: Any, arguments: dict[str, Any]) -> None:
    for key, value in arguments.items():
        if not hasattr(known, key) and key not in _BEYOND:
            fields = sorted(key for key in known.to_dict() if not key.startswith("_"))
            raise InputError(
                f"{config.name}: config.{key} is not a field of {type(known).__name__}"
                f"{did_you_mean(key, fields)} (it has: {', '.join(fields[:12])}, …)"
            )
        inner = getattr(known, key, None)
        if isinstance(value, dict) and hasattr(inner, "to_dict"):
            _check_fields(config, inner, value)


def _class_of(config: TargetConfig, made: Any) -> Any:
    """Return the class that the configuration names, or else the first with a head for its type."""
    import transformers
    from transformers.models.auto import modeling_auto

    named = list(getattr(made, "architectures", None) or [])
    for field, mapping in _HEADS:
        if field is None or getattr(made, field, False):
            found = getattr(modeling_auto, mapping, {}).get(made.model_type)
            named += [found] if isinstance(found, str) else list(found or ())
    for class_name in named:
        found = getattr(transformers, class_name, None)
        if found is not None:
            return found
    if named:
        raise InputError(f"{config.name}: transformers has no class {named[0]!r}")
    raise InputError(f"{config.name}: transformers has no model of this type")


def _fitted(
    config: TargetConfig, fields: dict[str, Any], asked: dict[str, Any], length: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields for a length, and in words what was changed for it.

    Raises InputError where the length is more than what the user set as the bound.
    """
    made = _made(config, fields)
    changed, words = dict(fields), {}
    least = length + _SPECIAL
    for name in _POSITIONS:
        bound = getattr(made, name, None)
        if not isinstance(bound, int) or bound >= length:
            continue
        if name in asked:
            raise InputError(
                f"{config.name}: length {length} is more than the {bound} that config.{name} was "
                "set to"
            )
        changed[name] = least
        words[f"config.{name}"] = f"{least} instead of {bound}, for the length"
    for name, value in (("image_size", length), ("max_source_positions", -(-length // 2))):
        sized = getattr(made, name, None)
        if name in asked or not isinstance(sized, int) or sized == value:
            continue
        if name == "max_source_positions" and not hasattr(made, "num_mel_bins"):
            continue
        changed[name] = value
        words[f"config.{name}"] = f"{value} instead of {sized}, for the length"
    start = "decoder_start_token_id"
    if getattr(made, "is_encoder_decoder", False) and getattr(made, start, None) is None:
        # Labels are moved behind it; saved models bring it, a type of model alone may not.
        changed[start] = getattr(made, "pad_token_id", None) or 0
        words[f"config.{start}"] = f"{changed[start]} instead of none, to shift labels by"
    return changed, words


def _fitted_vision(
    config: TargetConfig, fields: dict[str, Any], length: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields with a vision part's picture as large as the length, and that in words.

    A side that the user set is kept.
    """
    side = getattr(getattr(_made(config, fields), "vision_config", None), "image_size", None)
    own = config.arguments.get("vision_config")
    is_set = isinstance(own, dict) and "image_size" in own
    if not isinstance(side, int) or side == length or is_set:
        return fields, {}
    changed = _merged(fields, {"vision_config": {"image_size": length}})
    words = {"config.vision_config.image_size": f"{length} instead of {side}, for the length"}
    return changed, words
