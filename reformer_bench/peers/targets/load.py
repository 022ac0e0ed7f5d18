"""From a target to what builds its model; the code is imported once a process."""

from __future__ import annotations

import json

from reformer_bench.peers.targets.built import Builds
from reformer_bench.schema.target import TargetConfig, TargetKind

_LOADED: dict[str, Builds] = {}


def load_target(config: TargetConfig) -> Builds:
    """Import a target's code and return what builds its model.

    It is to be called before a recording begins: importing is not the model's, and code that is
    imported while tensors are fake may fail.

    Raises InputError where the target can't be loaded; see ``load_factory`` and
    ``load_transformers``.
    """
    key = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    if key not in _LOADED:
        if config.name.kind is TargetKind.TRANSFORMERS:
            from reformer_bench.peers.targets.transformers_models import load_transformers

            _LOADED[key] = load_transformers(config)
        else:
            from reformer_bench.peers.targets.code import load_factory

            _LOADED[key] = load_factory(config)
    return _LOADED[key]
