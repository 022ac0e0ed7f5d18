"""The Reformer, every technique a switch. torch only; knows nothing of benchmarks."""

from reformer_bench.model.lm import ReformerLM, attention_layer
from reformer_bench.spec.model import PRESETS, ModelConfig, preset

__all__ = ["PRESETS", "ModelConfig", "ReformerLM", "attention_layer", "preset"]
