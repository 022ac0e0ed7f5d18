"""Switches that only move memory around change no result."""

import pytest
import torch

from reformer_bench.model import PRESETS, ReformerLM
from tests.models import batch, largest_difference, loss_and_grads, small_config, small_model

KINDS = ("full", "memory_efficient", "sdpa", "local", "lsh", "lsh,local")
LENGTHS = [(2, 1), (3, 7), (1, 61), (2, 40)]


def _assert_same(a: ReformerLM, b: ReformerLM, shape) -> None:
    b.load_state_dict(a.state_dict())
    tokens, targets = batch(a, *shape)
    (loss_a, grads_a), (loss_b, grads_b) = (
        loss_and_grads(model, tokens, targets) for model in (a, b)
    )
    torch.testing.assert_close(loss_a, loss_b, rtol=1e-10, atol=1e-11)
    assert largest_difference(grads_a, grads_b) < 1e-10


@pytest.mark.parametrize("shape", LENGTHS, ids=str)
@pytest.mark.parametrize("residual", ["standard", "checkpointed", "reversible"])
@pytest.mark.parametrize("kind", KINDS)
def test_chunking_changes_nothing(kind, residual, shape):
    fields = {"attention": kind, "residual": residual}
    whole = small_model(**fields, head_groups=1)
    _assert_same(whole, small_model(1, **fields, ff_chunks=5, loss_chunks=3, head_groups=2), shape)


@pytest.mark.parametrize("ff_chunks", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_change_nothing(kind, dropout, ff_chunks):
    fields = {"attention": kind, "dropout": dropout, "ff_chunks": ff_chunks}
    standard = small_model(**fields, residual="standard")
    _assert_same(standard, small_model(1, **fields, residual="checkpointed"), (2, 29))


@pytest.mark.parametrize("shared", [True, False])
def test_kinds_of_full_attention_share_parameters_and_results(shared):
    models = [
        small_model(attention=kind, residual="standard", shared_qk=shared)
        for kind in ("full", "memory_efficient", "sdpa")
    ]
    for other in models[1:]:
        _assert_same(models[0], other, (2, 33))


def test_lsh_loads_into_shared_full_attention_and_back():
    lsh = small_model(attention="lsh")
    full = small_model(1, attention="full", shared_qk=True)
    full.load_state_dict(lsh.state_dict())
    lsh.load_state_dict(full.state_dict())


def test_a_reversible_model_with_mean_streams_has_its_residual_twins_parameters():
    twin = small_model(residual="standard")
    small_model(residual="reversible", merge_streams="mean").load_state_dict(twin.state_dict())


@pytest.mark.parametrize("residual", ["standard", "checkpointed", "reversible"])
@pytest.mark.parametrize("kind", ["full", "memory_efficient", "sdpa", "local"])
def test_later_tokens_change_no_earlier_logits(kind, residual):
    model = small_model(attention=kind, residual=residual)
    tokens, other = batch(model, 2, 30)
    with torch.no_grad():
        before = model(tokens)
        for i in (0, 8, 28):
            changed = torch.cat([tokens[:, : i + 1], other[:, i + 1 :]], 1)
            torch.testing.assert_close(
                model(changed)[:, : i + 1], before[:, : i + 1], rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_real_logits(kind):
    # One chunk and one bucket, so that padding can't move chunk borders either.
    fields = {"chunk_length": 32, "local_chunk_length": 32, "n_buckets": 1}
    model = small_model(attention=kind, **fields)
    tokens, _ = batch(model, 2, 20)
    padded = torch.cat([tokens, tokens[:, :9]], 1)
    valid = torch.arange(29).expand(2, 29) < 20
    with torch.no_grad():
        torch.testing.assert_close(
            model(padded, valid)[:, :20], model(tokens), rtol=1e-10, atol=1e-10
        )


def test_a_fixed_hash_seed_repeats_and_none_follows_the_global_seed():
    for hash_seed, seeds, same in ((3, (1, 2), True), (None, (1, 1), True), (None, (1, 2), False)):
        model = small_model(attention="lsh", hash_seed=hash_seed)
        tokens, _ = batch(model, 1, 120)
        outputs = []
        for seed in seeds:
            torch.manual_seed(seed)
            with torch.no_grad():
                outputs.append(model(tokens))
        assert torch.equal(*outputs) is same


def test_evaluation_drops_nothing():
    model = small_model(dropout=0.5).eval()
    tokens, targets = batch(model, 2, 20)
    plain = small_model()
    assert torch.equal(model.loss(tokens, targets), plain.loss(tokens, targets))


def test_ignored_targets_take_no_part():
    for fields in ({"residual": "standard"}, {"residual": "standard", "loss_chunks": 3}, {}):
        model = small_model(attention="full", merge_streams="concat", **fields)
        tokens, targets = batch(model, 1, 24)
        targets[:, 10:] = -100
        wanted = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        torch.testing.assert_close(model.loss(tokens, targets), wanted)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_presets_train_in_both_dtypes(name, dtype):
    config = small_config(**{**PRESETS[name], "dtype": dtype})
    torch.manual_seed(0)
    model = ReformerLM(config)
    tokens, targets = batch(model, 2, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model.loss(tokens, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("residual", ["checkpointed", "reversible"])
def test_offloaded_parameters_change_nothing(residual):
    fields = {"residual": residual, "attention": "lsh,full", "ff_chunks": 2, "dropout": 0.1}
    here = small_model(**fields)
    _assert_same(here, small_model(1, **fields, parameter_offload="cpu").place("cpu"), (2, 29))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "int64 of shape"),
        (torch.zeros(1, 3), "int64 of shape"),
        (torch.zeros(0, 3, dtype=torch.int64), "are empty"),
        (torch.zeros(1, 300, dtype=torch.int64), "beyond max_length = 256"),
    ],
)
def test_wrong_tokens_are_refused_with_what_was_expected(tokens, message):
    with pytest.raises(ValueError, match=message):
        small_model()(tokens)
