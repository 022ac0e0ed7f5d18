"""The kinds of attention, one file each, and the sublayer that runs any of them by head groups."""

from reformer_bench.model.attention.sublayer import AttentionSublayer

__all__ = ["AttentionSublayer"]
