"""The reversible stack: gradients of the plain equations, exact reconstruction, at any depth."""

import pytest
import torch

from reformer_bench.model import head, sublayer
from reformer_bench.model.stack.streams import FixedStream
from reformer_bench.model.tensors import zero_grads
from tests.model.reference import plain_reversible_loss
from tests.models import batch, largest_difference, loss_and_grads, small_model

KINDS = ("full", "memory_efficient", "sdpa", "local", "lsh", "lsh,local,local,local")


def _plain(model, tokens, targets, seed=5):
    torch.manual_seed(seed)
    model.zero_grad()
    loss = plain_reversible_loss(model, tokens, targets, model._begin_pass(tokens, None))
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def _relative(a, b):
    flat_a, flat_b = (torch.cat([g.flatten() for g in grads.values()]) for grads in (a, b))
    return float((flat_a - flat_b).norm() / flat_b.norm())


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 50)], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_plain_autograd(kind, dropout, shape):
    fields = {"attention": kind, "dropout": dropout, "n_layers": 4, "hash_seed": None}
    model = small_model(**fields, ff_chunks=3, loss_chunks=2)
    tokens, targets = batch(model, *shape)
    loss, grads = loss_and_grads(model, tokens, targets)
    plain_loss, plain_grads = _plain(model, tokens, targets)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-11, atol=1e-11)
    assert largest_difference(grads, plain_grads) < 1e-9


@pytest.mark.parametrize("merge", ["concat", "mean"])
def test_logits_differentiate_like_the_loss(merge):
    model = small_model(merge_streams=merge, ff_chunks=2, loss_chunks=2)
    tokens, targets = batch(model, 2, 19)
    _, grads = loss_and_grads(model, tokens, targets)
    model.zero_grad()
    logits = model(tokens)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    assert largest_difference(grads, {n: p.grad for n, p in model.named_parameters()}) < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_bfloat16_sublayers_stay_within_two_percent_of_plain_autograd(seed):
    # 8 bits of mantissa are 0.4%; parts add up in another order than the plain graph does.
    model = small_model(seed, attention="full", dtype="bfloat16", ff_chunks=2, n_layers=4)
    tokens, targets = batch(model, 2, 40)
    _, grads = loss_and_grads(model, tokens, targets)
    _, plain = _plain(model, tokens, targets)
    assert _relative(grads, plain) < 0.02


def _reconstruction(model, tokens, targets):
    """(largest error of the undone streams, whether bit by bit equal)."""
    opened, undone = [], []
    embed = model.embed

    def keep_embedding(*args):
        x = embed(*args)
        opened.append(x.flatten(0, 1).clone())
        return x

    model.embed = keep_embedding
    model.on_reconstructed = lambda streams: undone.extend(
        s.values(slice(None)).clone() for s in streams
    )
    loss_and_grads(model, tokens, targets)
    exact = model.config.streams == "fixed"
    wanted = FixedStream.of(opened[0]).values(slice(None)) if exact else opened[0]
    return max(float((x - wanted).abs().max()) for x in undone)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_64_layers_of_lsh_are_undone_to_the_last_bit(dtype):
    model = small_model(attention="lsh", n_layers=64, dtype=dtype, hash_seed=None, dropout=0.1)
    assert _reconstruction(model, *batch(model, 1, 90)) == 0.0


def test_float_streams_lose_what_fixed_ones_keep():
    """Why streams are fixed-point: one bucket that flips by rounding shifts chunk borders, and the
    error spreads through the layers."""
    errors = {}
    for streams in ("float", "fixed"):
        model = small_model(
            attention="lsh",
            n_layers=12,
            dtype="bfloat16",
            n_hashes=2,
            streams=streams,
            max_length=1024,
        )
        errors[streams] = _reconstruction(model, *batch(model, 1, 1000))
    assert errors["fixed"] == 0.0
    assert errors["float"] > 1e-2


def test_streams_beyond_their_range_are_an_error_that_names_the_switch():
    model = small_model(attention="full", dtype="float32")
    with torch.no_grad():
        model.layers[0].attention.output.weight.mul_(1e6)
    tokens, targets = batch(model, 1, 20)
    with pytest.raises(OverflowError, match="streams = 'float'"):
        model.loss(tokens, targets)


def test_a_second_backward_pass_is_refused():
    model = small_model()
    loss = model.loss(*batch(model, 1, 10))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        loss.backward()


def test_gradients_accumulate_over_micro_batches():
    model = small_model()
    first, second = batch(model, 1, 20, seed=1), batch(model, 1, 20, seed=2)
    (_, a), (_, b) = loss_and_grads(model, *first), loss_and_grads(model, *second)
    model.zero_grad()
    for data in (first, second):
        torch.manual_seed(5)
        model.loss(*data).backward()
    total = {name: a[name] + b[name] for name in a}
    assert largest_difference(total, {n: p.grad for n, p in model.named_parameters()}) < 1e-12


def test_gradients_reach_parameters_without_a_copy(monkeypatch):
    """autograd takes over the memory the sweep wrote, so that gradients exist once."""
    model = small_model()
    seen = []

    def spying(params):
        room = zero_grads(params)
        seen.extend(t.data_ptr() for t in room.values())
        return room

    for module in (sublayer, head):
        monkeypatch.setattr(module, "zero_grads", spying)
    model.loss(*batch(model, 1, 20)).backward()
    owned = {
        p.grad.data_ptr() for n, p in model.named_parameters() if not n.startswith("embedding")
    }
    assert owned == set(seen)
