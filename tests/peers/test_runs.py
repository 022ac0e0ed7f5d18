"""Peers and checkpoints as cases of a suite."""

import json

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("reformer_pytorch")

from reformer_bench.peers.adapter import parameter_count
from reformer_bench.run.expand import expand
from reformer_bench.run.overrides import with_lengths, with_settings, with_variants
from reformer_bench.run.workloads import build_workload
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.suite import find_suite
from tests.models import hf_model
from tests.run.test_workloads import run

CPU = torch.device("cpu")
SMALL = ["model.d_model=32", "model.d_ff=64", "model.n_heads=2", "model.chunk_length=16"]


def peers_cases(*settings: str):
    suite = with_lengths(find_suite("peers"), "64")
    return {case.variant: case for case in expand(with_settings(suite, settings), "cpu")}


@pytest.mark.parametrize("kind", ["train_step", "forward"])
def test_every_variant_of_the_suite_takes_a_step(kind):
    cases = peers_cases(f"workloads={kind}", *SMALL)
    assert len(cases) == 5
    for case in cases.values():
        workload = build_workload(case, CPU)
        assert run(workload)[0] == "forward"
        assert all(p.grad is None for p in workload.module.parameters())
        if case.implementation != "native":
            assert workload.settings["library"].startswith(case.implementation)


def test_peers_have_no_attention_sublayer_of_their_own():
    case = peers_cases("workloads=attention", *SMALL)["transformers"]
    with pytest.raises(ValueError, match="workload = 'attention' needs implementation = 'native'"):
        build_workload(case, CPU)


def test_peers_are_asked_for_the_model_that_ours_is():
    cases = peers_cases()
    asked = {cases[name].model for name in ("reformer-pytorch", "transformers")}
    ours = cases["reformer-as-peers"].model.model_copy(update={"loss_chunks": 1})
    assert asked == {ours}
    assert parameter_count(ours) == parameter_count(cases["reformer"].model)


def smoke(folder, *settings: str):
    suite = with_lengths(with_variants(find_suite("smoke"), ["reformer"]), "64")
    return with_settings(suite, [f"model.checkpoint={folder}", *settings])


def test_a_checkpoint_makes_the_model_and_gives_it_its_weights(tmp_path):
    theirs = hf_model(
        attn_layers=["lsh", "local"], hidden_act="gelu", local_attention_probs_dropout_prob=0.1
    )
    theirs.save_pretrained(tmp_path)
    case = expand(smoke(tmp_path), "cpu")[0]
    assert case.checkpoint == str(tmp_path)
    assert case.model.attention == ("lsh", "local")
    assert case.model.activation == "gelu"
    assert case.model.look_back == "ring"
    # How it is computed stays the suite's to say.
    assert case.model.ff_chunks == 16
    workload = build_workload(case, CPU)
    assert "local_attention_probs_dropout_prob = 0.1" in workload.settings["mismatches"]
    weights = [p.detach() for p in workload.module.parameters()]
    wanted = theirs.lm_head.decoder.weight
    assert any(w.shape == wanted.shape and torch.equal(w, wanted) for w in weights)


def test_switches_may_be_set_beside_a_checkpoint_and_shapes_may_not(tmp_path):
    hf_model().save_pretrained(tmp_path)
    assert expand(smoke(tmp_path, "model.n_hashes=8"), "cpu")[0].model.n_hashes == 8
    with pytest.raises(InputError, match=r"model\.d_model = 64 differs from the checkpoint's 32"):
        expand(smoke(tmp_path, "model.d_model=64"), "cpu")


def test_other_weights_are_another_case(tmp_path):
    for name in ("a", "b"):
        hf_model().save_pretrained(tmp_path / name)
    first, second = (expand(smoke(tmp_path / name), "cpu")[0] for name in ("a", "b"))
    assert first.model == second.model
    assert first.id != second.id


def test_a_variant_that_is_no_reformer_takes_no_checkpoint(tmp_path):
    hf_model().save_pretrained(tmp_path)
    suite = with_settings(find_suite("smoke"), [f"model.checkpoint={tmp_path}"])
    with pytest.raises(InputError, match=r"variant transformer: .* --variants"):
        expand(suite, "cpu")
    suite = with_settings(find_suite("peers"), [f"model.checkpoint={tmp_path}"])
    with pytest.raises(InputError, match=r"variant reformer-pytorch: .*'native'"):
        expand(suite, "cpu")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no config.json"),
        ("{", "is not JSON"),
        (json.dumps({"model_type": "bert"}), "of type 'bert', expected 'reformer'"),
        (json.dumps({"model_type": "reformer"}), "lacks 'attn_layers'"),
    ],
)
def test_a_folder_that_holds_no_reformer_is_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=rf"^model.checkpoint = [^\n]*{words}[^\n]*$"):
        expand(smoke(tmp_path), "cpu")


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        expand(smoke(tmp_path / "nowhere"), "cpu")
