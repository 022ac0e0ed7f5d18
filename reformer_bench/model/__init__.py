"""The Reformer, in which every memory technique is a switch. It needs torch only, and knows nothing
of benchmarks.
"""

from reformer_bench.model.lm import ReformerLM, attention_layer
from reformer_bench.schema.model import PRESETS, ModelConfig, preset

__all__ = ["PRESETS", "ModelConfig", "ReformerLM", "attention_layer", "preset"]
