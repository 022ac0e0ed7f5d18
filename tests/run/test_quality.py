"""Quality: LSH attention against full attention, on vectors whose answer is known."""

import pytest
import torch

from reformer_bench.model.attention.common import AttentionSettings
from reformer_bench.model.attention.plan import plan_chunks
from reformer_bench.run.quality import lsh_quality, seen_keys
from reformer_bench.schema.model import ModelConfig
from tests.model.reference import times_seen

CPU = torch.device("cpu")


def model(**fields: object) -> ModelConfig:
    given = {"d_model": 32, "n_heads": 2, "chunk_length": 16, "attention": "lsh", "n_layers": 1}
    return ModelConfig(**{**given, **fields})


@pytest.mark.parametrize("causal", [True, False])
def test_one_chunk_of_one_bucket_is_full_attention(causal):
    exact = model(n_buckets=1, chunk_length=128, n_hashes=1, causal=causal)
    for found in lsh_quality(exact, 100, CPU, seed=0):
        assert found.relative_error == pytest.approx(0, abs=1e-5)
        assert found.mass_caught == pytest.approx(1, abs=1e-5)
        assert found.n_queries == 200


def test_more_rounds_come_nearer_and_planted_neighbours_are_found_before_random_ones():
    by_rounds = [lsh_quality(model(n_hashes=r), 512, CPU, seed=0) for r in (1, 4, 16)]
    for inputs in (0, 1):
        errors = [found[inputs].relative_error for found in by_rounds]
        caught = [found[inputs].mass_caught for found in by_rounds]
        assert errors == sorted(errors, reverse=True)
        assert caught == sorted(caught)
    assert all(planted.mass_caught > random.mass_caught for planted, random in by_rounds)


def test_the_same_seed_gives_the_same_figures():
    assert lsh_quality(model(), 200, CPU, seed=3) == lsh_quality(model(), 200, CPU, seed=3)


@pytest.mark.parametrize("ring", [False, True], ids=["paper", "ring"])
@pytest.mark.parametrize("across", [False, True], ids=["own bucket", "across"])
def test_seen_keys_are_those_of_the_plain_reference(ring, across):
    length, chunk = 45, 8
    buckets = torch.randint(6, (2, length), generator=torch.Generator().manual_seed(0))
    look_back = "ring" if ring else "paper"
    config = model(chunk_length=chunk, attend_across_buckets=across, look_back=look_back)
    plan = plan_chunks(buckets[None], chunk, across_buckets=across, ring=ring)
    seen = seen_keys(plan, AttentionSettings.of(config, 0), 0, torch.arange(length))
    expected = times_seen(buckets, chunk, across=across, ring=ring).sum(0) > 0
    assert torch.equal(seen, expected)
