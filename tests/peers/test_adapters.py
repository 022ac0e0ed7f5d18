"""Peers on our task: what is pinned holds while they run, and what differs is told."""

import sys

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("reformer_pytorch")

from reformer_bench.measure.flops import count_flops
from reformer_bench.peers.adapter import parameter_count
from reformer_bench.peers.installed import check_installed
from reformer_bench.peers.reformer_pytorch_lm import ReformerPytorchLM, near_square
from reformer_bench.peers.transformers_lm import TransformersLM
from reformer_bench.schema.errors import InputError
from tests.models import PEER_LENGTH, peer_config, tokens

PEERS = [
    pytest.param(ReformerPytorchLM, id="reformer-pytorch"),
    pytest.param(TransformersLM, id="transformers"),
]


def lsh_layers(model) -> list[torch.nn.Module]:
    """The modules whose call is LSH attention."""
    from reformer_pytorch.reformer_pytorch import LSHAttention
    from transformers.models.reformer.modeling_reformer import LSHSelfAttention

    return [m for m in model.modules() if isinstance(m, LSHAttention | LSHSelfAttention)]


@pytest.mark.parametrize("peer", PEERS)
def test_a_step_gives_every_parameter_in_use_a_gradient(peer):
    model = peer(peer_config(), PEER_LENGTH).train()
    loss = model.loss(*tokens())
    assert loss.shape == ()
    loss.backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    # transformers keeps this one and never adds it.
    assert unused <= {"peer.lm_head.bias"}


@pytest.mark.parametrize("length", [32, PEER_LENGTH, 256])
@pytest.mark.parametrize("peer", PEERS)
def test_every_layer_hashes_at_every_length_allowed(peer, length, monkeypatch):
    model = peer(peer_config(), length).train()
    layers = lsh_layers(model)
    name = "hash_vectors" if peer is ReformerPytorchLM else "_hash_vectors"
    hashed = []
    for layer in layers:
        plain = getattr(layer, name)

        def spied(*args, plain=plain, layer=layer, **kwargs):
            hashed.append(layer)
            return plain(*args, **kwargs)

        monkeypatch.setattr(layer, name, spied)
    model.loss(*tokens(length=length))
    assert hashed == layers
    assert len(layers) == model.config.n_layers


@pytest.mark.parametrize("peer", PEERS)
def test_no_layer_keeps_its_activations(peer):
    """Reversible: what a forward pass saves does not grow with the layers."""

    def saved(n_layers: int) -> int:
        sizes: list[int] = []
        model = peer(peer_config(n_layers=n_layers), PEER_LENGTH).train()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            model.loss(*tokens())
        return sum(sizes)

    assert saved(2) == saved(4)


@pytest.mark.parametrize("peer", PEERS)
def test_layers_have_weights_of_their_own_and_counts_are_told(peer):
    config = peer_config()
    model = peer(config, PEER_LENGTH)
    deeper = peer(peer_config(n_layers=3), PEER_LENGTH)
    count, more = (sum(p.numel() for p in m.parameters()) for m in (model, deeper))
    layer = parameter_count(peer_config(n_layers=3)) - parameter_count(config)
    bias = config.d_model if peer is ReformerPytorchLM else 0
    assert more - count == layer + bias
    assert model.settings()["parameters"] == str(count)
    assert any(f"{count:,} parameters" in words for words in model.mismatches())


def test_transformers_matches_to_the_parameter_where_positions_do():
    config = peer_config(max_length=PEER_LENGTH, axial_shape=near_square(PEER_LENGTH))
    assert TransformersLM(config, PEER_LENGTH).mismatches() == []


def test_what_a_peer_does_otherwise_is_told():
    paper = {"attend_across_buckets": False, "look_back": "paper", "count_duplicates": False}
    for peer in (ReformerPytorchLM, TransformersLM):
        told = "; ".join(peer(peer_config(**paper), PEER_LENGTH).mismatches())
        assert "other buckets" in told
        assert "another round" in told
        assert "several rounds" in told
    told = "; ".join(ReformerPytorchLM(peer_config(), PEER_LENGTH).mismatches())
    assert "8 buckets in one hash, not 16" in told


def test_the_settings_that_switch_peers_quietly_are_pinned_and_told():
    theirs = TransformersLM(peer_config(n_buckets=(2, 4)), PEER_LENGTH)
    assert theirs.peer.config.num_buckets == [2, 4]
    assert theirs.settings()["use_cache"] == "False"
    assert theirs.settings()["num_buckets"] == "[2, 4]"
    theirs.train().loss(*tokens())
    assert theirs.peer.config.num_buckets == [2, 4]
    other = ReformerPytorchLM(peer_config(), PEER_LENGTH).settings()
    for name in ("full_attn_thres", "reverse_thres", "n_local_attn_heads"):
        assert other[name] == "0"
    assert other["use_full_attn"] == other["weight_tie"] == "False"
    assert other["library"].startswith("reformer-pytorch 1.4")


@pytest.mark.parametrize(
    ("peer", "fields", "length", "words"),
    [
        (ReformerPytorchLM, {}, 48, "multiple of 2 · chunk_length = 32, not 48"),
        (ReformerPytorchLM, {"attention": "local"}, PEER_LENGTH, "attention = 'lsh'"),
        (ReformerPytorchLM, {"positions": "none"}, PEER_LENGTH, "rotary"),
        (ReformerPytorchLM, {"d_ff": 40}, PEER_LENGTH, "multiple of d_model"),
        (TransformersLM, {}, 40, "multiple of its chunks, 16, not 40"),
        (TransformersLM, {}, 16, "attends fully to length 16"),
        (TransformersLM, {"ff_chunks": 3}, PEER_LENGTH, "ff_chunks = 3 to divide"),
        (TransformersLM, {"positions": "none"}, PEER_LENGTH, "positions = 'none'"),
        (TransformersLM, {"n_buckets": 1}, PEER_LENGTH, "even n_buckets"),
        (TransformersLM, {"residual": "standard"}, PEER_LENGTH, "residual = 'standard'"),
        (TransformersLM, {"attention": "sdpa"}, PEER_LENGTH, r"attention = \['sdpa'\]"),
    ],
)
def test_what_a_peer_would_do_instead_is_refused(peer, fields, length, words):
    with pytest.raises(ValueError, match=words):
        peer(peer_config(**fields), length)


def test_another_length_than_built_for_is_refused():
    with pytest.raises(ValueError, match="built for length 128, not 64"):
        TransformersLM(peer_config(), PEER_LENGTH).loss(*tokens(length=64))


@pytest.mark.parametrize("peer", PEERS)
def test_operations_of_a_step_can_be_counted(peer):
    model = peer(peer_config(), PEER_LENGTH).train()
    inputs, targets = tokens()
    forward = count_flops(lambda: model.loss(inputs, targets))
    assert count_flops(lambda: model.loss(inputs, targets).backward()) > 2 * forward


@pytest.mark.parametrize("peer", PEERS)
def test_bfloat16_runs_and_is_told(peer):
    model = peer(peer_config(dtype="bfloat16"), PEER_LENGTH).train()
    model.loss(*tokens()).backward()
    assert any("bfloat16" in words for words in model.mismatches())


@pytest.mark.parametrize("peer", PEERS)
def test_a_missing_library_is_one_line_with_the_extra(peer, monkeypatch):
    module = peer.library.replace("-", "_")
    monkeypatch.setitem(sys.modules, module, None)
    for try_it in (lambda: check_installed(peer.library), lambda: peer(peer_config(), PEER_LENGTH)):
        with pytest.raises(InputError, match=r"^[^\n]*reformer-bench\[peers\][^\n]*$"):
            try_it()


@pytest.mark.parametrize(
    ("length", "factors"), [(4096, (64, 64)), (8192, (64, 128)), (192, (12, 16)), (7, (1, 7))]
)
def test_near_square(length, factors):
    assert near_square(length) == factors
