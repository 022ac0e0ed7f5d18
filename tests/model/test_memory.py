"""Peaks are what the techniques promise, byte for byte on the CPU allocator."""

import pytest
import torch

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.model import ModelConfig, ReformerLM

BASE = {
    "vocab_size": 64,
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 128,
    "n_layers": 2,
    "max_length": 65_536,
    "ff_chunks": 16,
    "loss_chunks": 16,
    "head_groups": 4,
}


def activation_peak(length: int, **fields) -> int:
    """Peak bytes of forward and backward, less parameters' gradients; parameters were there."""
    torch.manual_seed(0)
    model = ReformerLM(ModelConfig(**{**BASE, **fields}))
    tokens = torch.randint(64, (1, length))
    with record_cpu_allocations() as recording:
        model.loss(tokens, tokens).backward()
    gradients = sum(p.numel() * p.element_size() for p in model.parameters())
    return recording.timeline.peak().allocated_bytes - gradients


@pytest.mark.parametrize(
    "attention", ["lsh", pytest.param("memory_efficient", marks=pytest.mark.slow), "local"]
)
def test_reversible_activations_do_not_grow_with_depth(attention):
    peaks = [
        activation_peak(1536, attention=attention, n_layers=n, n_hashes=1, ff_chunks=4)
        for n in (4, 8, 16)
    ]
    assert max(peaks) < 1.02 * min(peaks)


def test_standard_activations_grow_with_every_layer():
    few, more = (
        activation_peak(2048, attention="lsh", residual="standard", n_layers=n) for n in (2, 4)
    )
    assert more > 1.7 * few


@pytest.mark.parametrize("residual", ["reversible", "checkpointed"])
def test_chunks_take_the_feed_forward_width_out_of_the_peak(residual):
    fields = {"residual": residual, "attention": "lsh", "n_hashes": 1, "n_layers": 1}
    wide, narrow, whole = (
        activation_peak(4096, **fields, d_ff=d_ff, ff_chunks=chunks)
        for d_ff, chunks in ((32 * 64, 16), (2 * 64, 16), (32 * 64, 1))
    )
    assert wide <= 1.3 * narrow
    assert whole > 3 * wide


def test_lsh_memory_is_linear_in_length():
    fields = {"attention": "lsh", "n_layers": 1, "n_hashes": 1}
    shorter, longer = (activation_peak(length, **fields) for length in (8192, 16384))
    assert longer <= 2.1 * shorter


def test_memory_efficient_attention_is_linear_and_full_attention_is_not():
    growth = {
        kind: activation_peak(2048, attention=kind, n_layers=1)
        / activation_peak(1024, attention=kind, n_layers=1)
        for kind in ("memory_efficient", "full")
    }
    assert growth["memory_efficient"] < 2.1
    assert growth["full"] > 3.5


def test_the_reformer_holds_little_beside_two_streams_and_their_gradients():
    length, width = 16384, 64
    floor = 4 * length * width * 4
    peak = activation_peak(length, attention="lsh", d_ff=256, n_hashes=1, n_layers=1)
    # What remains is one head's packed rows, output and gradients, and one block.
    assert peak < 2.2 * floor


def test_head_groups_divide_what_attention_holds():
    one, four = (
        activation_peak(8192, attention="lsh", head_groups=groups, n_layers=1) for groups in (1, 4)
    )
    assert four < 0.7 * one


def test_loss_chunks_take_the_vocabulary_out_of_the_peak():
    fields = {"attention": "local", "n_layers": 1, "vocab_size": 4096, "residual": "standard"}
    whole, pieces = (activation_peak(2048, **fields, loss_chunks=n) for n in (1, 16))
    assert whole - pieces > 2 * 2048 * 4096 * 4 * 0.9
