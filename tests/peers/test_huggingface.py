"""A converted model computes what transformers' does: same logits, same gradients."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("transformers")

from reformer_bench.peers.huggingface import load_checkpoint, native_state, to_native
from reformer_bench.peers.huggingface_config import checkpoint_fields, differences
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.model import ModelConfig
from tests.models import HF_SMALL, PEER_LENGTH, hf_model, tokens


def logits_difference(theirs, length: int = PEER_LENGTH) -> float:
    native = to_native(theirs.eval())
    inputs, _ = tokens(length=length)
    with torch.no_grad():
        return float((theirs(inputs).logits - native(inputs)).abs().max())


def gradient_difference(theirs, length: int = PEER_LENGTH) -> float:
    """The largest difference of a parameter's gradients, relative to their norm."""
    native = to_native(theirs.train())
    inputs, targets = tokens(length=length)
    cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten()).backward()
    native.loss(inputs, targets).backward()
    graded = copy.deepcopy(theirs)
    for of_copy, parameter in zip(graded.parameters(), theirs.parameters(), strict=True):
        zero = torch.zeros_like(parameter)
        of_copy.data = zero if parameter.grad is None else parameter.grad
    expected = native_state(graded, native.config)
    found = {name: p.grad for name, p in native.named_parameters()}
    # Their model has no bias in its head that it adds.
    del found["output.head.bias"]
    return max(
        float((grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-8))
        for name, grad in found.items()
    )


BUCKETS = {1: [2, 4], 2: 8, 4: [4, 2, 2], 8: [6, 4]}
GRID = [
    pytest.param(
        {"attn_layers": p, "is_decoder": d, "num_hashes": h, "num_buckets": BUCKETS[h]},
        id=f"{'-'.join(p)},{'decoder' if d else 'masked'},hashes={h},buckets={BUCKETS[h]}",
    )
    for p in (["lsh"], ["local"], ["lsh", "local", "lsh"])
    for d in (True, False)
    for h in BUCKETS
    if "lsh" in p or h == 1
]
VARIETY = [
    pytest.param({"axial_pos_embds": False}, 96, id="learned-positions"),
    pytest.param({"axial_pos_embds": False, "num_hashes": 4}, 16, id="one-chunk"),
    pytest.param(
        {"axial_pos_embds": False, "attn_layers": ["local", "lsh"], "is_decoder": False},
        16,
        id="one-chunk,masked",
    ),
    pytest.param({"hidden_act": "gelu", "layer_norm_eps": 1e-12}, PEER_LENGTH, id="gelu"),
    pytest.param(
        {"attn_layers": ["local", "lsh"], "lsh_attn_chunk_length": 32}, PEER_LENGTH, id="two-chunks"
    ),
    pytest.param(
        {"chunk_size_feed_forward": 32, "chunk_size_lm_head": 64}, PEER_LENGTH, id="pieces"
    ),
    pytest.param({"num_buckets": [6, 10], "num_attention_heads": 3}, PEER_LENGTH, id="odd-factors"),
]


@pytest.mark.parametrize("fields", GRID)
def test_logits_and_gradients_agree(fields):
    theirs = hf_model(**fields)
    assert logits_difference(theirs) < 1e-4
    assert gradient_difference(theirs) < 1e-3


@pytest.mark.parametrize(("fields", "length"), VARIETY)
def test_they_agree_whatever_the_shape(fields, length):
    theirs = hf_model(**fields)
    assert logits_difference(theirs, length) < 1e-4
    assert gradient_difference(theirs, length) < 1e-3


def test_in_float64_the_mathematics_is_the_same():
    fields = {"attn_layers": ["lsh", "local"], "num_hashes": 4, "num_buckets": [2, 4]}
    assert logits_difference(hf_model(**fields).double()) < 1e-11
    assert gradient_difference(hf_model(**fields).double()) < 1e-11


def test_a_length_that_they_pad_agrees_too():
    theirs = hf_model(axial_pos_embds=False, attn_layers=["lsh", "local"])
    assert logits_difference(theirs, 100) < 1e-4


def test_padding_agrees():
    theirs = hf_model().eval()
    native = to_native(theirs)
    inputs, _ = tokens()
    valid = torch.ones_like(inputs, dtype=torch.bool)
    valid[0, 90:] = False
    with torch.no_grad():
        expected = theirs(inputs, attention_mask=valid.long()).logits
        found = native(inputs, valid)
    assert float((found - expected)[valid].abs().max()) < 1e-4


def test_without_the_rounding_of_lone_tokens_only_those_differ():
    # Theirs gives a token that no round shows another one 1.003 times its value.
    theirs = hf_model(num_hashes=4, num_buckets=[2, 4]).eval()
    native = to_native(theirs)
    inputs, _ = tokens()
    config = native.config.model_copy(update={"lone_tokens": "exact"})
    exact = type(native)(config)
    exact.load_state_dict(native.state_dict())
    with torch.no_grad():
        off = (theirs(inputs).logits - exact(inputs)).abs().amax(-1)
    assert off[:, 0].min() > 1e-4
    assert off[:, PEER_LENGTH // 2 :].max() < 1e-4


def test_mode_dtype_and_pieces_carry_over():
    theirs = hf_model(chunk_size_feed_forward=32, hidden_dropout_prob=0.1).train()
    native = to_native(theirs)
    assert native.training
    assert native.config.ff_chunks == PEER_LENGTH // 32
    assert native.config.dropout == 0.1
    assert not to_native(theirs.eval()).training
    assert to_native(hf_model().double()).config.dtype == "float64"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lsh_num_chunks_before": 2}, "lsh_num_chunks_before = 2"),
        (
            {"attn_layers": ["local"], "is_decoder": False, "local_num_chunks_after": 1},
            "local_num_chunks_after = 1",
        ),
        ({"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ({"num_buckets": None}, "num_buckets = None"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(fields, named):
    with pytest.raises(ValueError, match=named):
        to_native(hf_model(**fields))


@pytest.mark.parametrize("length", [17, 32, 100, 128, 1008])
@pytest.mark.parametrize("chunk_length", [2, 16])
def test_buckets_left_open_are_chosen_by_the_first_sequence_as_they_choose(length, chunk_length):
    fields = {"num_buckets": None, "lsh_attn_chunk_length": chunk_length}
    theirs = hf_model(**fields, max_position_embeddings=1024, axial_pos_shape=[32, 32]).eval()
    native = to_native(theirs, length=length)
    inputs, _ = tokens(length=length)
    with torch.no_grad():
        expected = theirs(inputs).logits
        assert float((expected - native(inputs)).abs().max()) < 1e-4
    chosen = theirs.config.num_buckets
    assert native.config.n_buckets == (tuple(chosen) if isinstance(chosen, list) else chosen)
    # The choice is theirs for good, so that no length has to be said any more.
    assert to_native(theirs).config == native.config


def test_a_number_of_buckets_that_is_set_stays():
    assert to_native(hf_model(num_buckets=[2, 4]), length=1024).config.n_buckets == (2, 4)


def test_a_first_sequence_of_one_chunk_chooses_no_buckets():
    with pytest.raises(ValueError, match="longer than one chunk of 16 tokens"):
        to_native(hf_model(num_buckets=None), length=16)


def test_another_class_is_refused():
    with pytest.raises(ValueError, match="got a ReformerModel"):
        to_native(hf_model().reformer)


def test_dropout_that_has_no_place_in_ours_is_told():
    found = differences({**HF_SMALL, "lsh_attention_probs_dropout_prob": 0.1})
    assert any("lsh_attention_probs_dropout_prob = 0.1" in words for words in found)
    assert differences(HF_SMALL) == []


@pytest.mark.parametrize("decoder", [True, False])
def test_a_saved_folder_loads_with_its_weights(tmp_path, decoder):
    theirs = hf_model(is_decoder=decoder, attn_layers=["lsh", "local"]).eval()
    theirs.save_pretrained(tmp_path)
    native = load_checkpoint(tmp_path, ModelConfig(**checkpoint_fields(tmp_path))).eval()
    inputs, _ = tokens()
    with torch.no_grad():
        assert float((theirs(inputs).logits - native(inputs)).abs().max()) < 1e-4


def test_a_folder_without_weights_is_one_line(tmp_path):
    hf_model().save_pretrained(tmp_path)
    fields = checkpoint_fields(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"^model.checkpoint = [^\n]*$"):
        load_checkpoint(tmp_path, ModelConfig(**fields))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b"no weights"),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["other content", "cut short", "a folder"],
)
def test_weights_that_cannot_be_read_are_one_line(tmp_path, spoil):
    hf_model().save_pretrained(tmp_path)
    spoil(tmp_path / "model.safetensors")
    config = ModelConfig(**checkpoint_fields(tmp_path))
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path, config)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
