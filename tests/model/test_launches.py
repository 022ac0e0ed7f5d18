"""What a training step on a GPU launches and moves, counted on fake tensors at a suite's width."""

from __future__ import annotations

import functools

import pytest
import torch

from reformer_bench.measure.predict import predict
from reformer_bench.measure.profile import PhaseContext
from reformer_bench.model import ReformerLM
from reformer_bench.run.predict import predict_case
from reformer_bench.schema.case import Case
from reformer_bench.schema.devices import device_profile
from reformer_bench.schema.model import preset
from reformer_bench.schema.prediction import Prediction

MOST_LAUNCHES_OF_A_LAYER = 60
LAYERS = 6


@functools.cache
def predicted(name: str, length: int, n_layers: int, **fields: object) -> Prediction:
    """Predict a step of ``seq-scaling`` as that suite has it for CUDA, without its optimizer."""
    model = preset(
        name, d_model=1024, d_ff=4096, n_layers=n_layers, dtype="bfloat16", max_length=2**20,
        **{"n_heads": 8, **fields},
    )  # fmt: skip
    case = Case(suite="", variant=name, model=model, length=length, device="cuda", optimizer="none")
    return predict_case(case, profile=device_profile("h100-80"))


def of_a_layer(length: int = 16_384, **fields: object) -> int:
    """Return how many launches one layer more takes."""
    few, more = (predicted("reformer", length, n, **fields).launches for n in (1, 2))
    return more - few


@pytest.mark.parametrize(
    "fields",
    [{}, {"n_hashes": 1}, {"n_hashes": 2}, {"n_heads": 4}, {"n_heads": 16}, {"length": 65_536}],
    ids=str,
)
def test_a_layer_is_few_launches_whatever_its_length_rounds_and_heads(fields):
    assert of_a_layer(**fields) <= MOST_LAUNCHES_OF_A_LAYER


def test_launches_dont_depend_on_length():
    assert of_a_layer(4_096) == of_a_layer(65_536)


def test_bytes_moved_are_near_those_of_fused_attention():
    ours = predicted("reformer", 16_384, LAYERS).moved_bytes
    theirs = predicted("flash-transformer", 16_384, LAYERS).moved_bytes
    assert ours <= 1.5 * theirs


def test_bytes_moved_grow_as_length():
    """With room for weights, which don't grow, and for what a hash takes with more buckets."""
    short, long = (predicted("reformer", n, LAYERS).moved_bytes for n in (16_384, 65_536))
    assert 3.5 * short < long < 4.05 * short


@pytest.mark.parametrize("rounds", [4, 8])
def test_what_rounds_hold_bounds_the_groups_of_heads(rounds):
    """More rounds than the streams' share allows are more groups, not more memory."""
    few, more = (
        predicted("reformer", 16_384, 2, n_hashes=n).peak_bytes for n in (rounds, 2 * rounds)
    )
    assert more < 1.1 * few


def test_pieces_are_no_finer_than_attention():
    """Finer pieces of feed-forward and loss would save nothing: the peak is attention's."""
    coarse = predicted("reformer", 16_384, 2, ff_chunks=1, loss_chunks=1)
    fine = predicted("reformer", 16_384, 2, ff_chunks=64, loss_chunks=64)
    assert fine.peak_bytes == coarse.peak_bytes
    # One head at a time leaves feed-forward the largest, so that it is cut.
    small = {"head_groups": 8}
    whole = predicted("reformer", 16_384, 2, ff_chunks=1, **small)
    cut = predicted("reformer", 16_384, 2, ff_chunks=64, **small)
    assert cut.peak_bytes < whole.peak_bytes


def public_peak(device: str, head_groups: int | None) -> int:
    config = preset(
        "reformer", d_model=64, d_ff=64, n_heads=4, n_layers=1, dtype="bfloat16",
        head_groups=head_groups, chunk_length=16,
    )  # fmt: skip

    def step(model: ReformerLM, phase: PhaseContext) -> None:
        tokens = torch.zeros(1, 512, dtype=torch.int64)
        with phase("forward"):
            loss = model.loss(tokens, tokens)
        with phase("backward"):
            loss.backward()

    return predict(lambda: ReformerLM(config), step, device=device).peak_bytes


def test_a_gpus_choices_are_followed_wherever_a_model_is_predicted_for_it():
    assert public_peak("l4", None) == public_peak("l4", 1) > public_peak("l4", 4)
    assert public_peak("cpu", None) == public_peak("cpu", 4)
