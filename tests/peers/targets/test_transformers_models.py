"""Types of transformers' models, and saved configurations, without any code of theirs."""

import json

import pytest
import torch

pytest.importorskip("transformers")

from reformer_bench.peers.targets.load import load_target
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.target import target_config

CPU = torch.device("cpu")
TINY = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
}


def built(target, length=16, **arguments):
    return load_target(target_config(target, arguments))(1, length)


def saved(folder, **fields):
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return f"hf:{folder}"


def test_a_type_with_fields_has_labels_and_a_loss():
    model = built("hf:llama", **TINY)
    inputs = model.inputs(1, 16, CPU)
    assert inputs["labels"].shape == (1, 16)
    assert model.own_loss(inputs).ndim == 0
    assert model.module.config.num_hidden_layers == 1


def test_a_saved_configuration_is_the_same_model(tmp_path):
    one = built(saved(tmp_path, model_type="llama", **TINY)).module
    other = built("hf:llama", **TINY).module
    assert str(one) == str(other)


def test_more_positions_are_made_where_the_length_needs_them():
    model = built("hf:gpt2", length=2000, n_layer=1, n_embd=16, n_head=2)
    assert model.module.config.n_positions >= 2000
    assert "instead of 1024" in model.settings["config.n_positions"]


def test_positions_that_were_set_are_kept():
    with pytest.raises(InputError, match=r"length 2000 is more than the 512 that config\."):
        built("hf:gpt2", length=2000, n_layer=1, n_embd=16, n_head=2, n_positions=512)


def test_fields_of_a_configuration_inside_are_set(tmp_path):
    fields = {"model_type": "gemma3", "text_config": {**TINY, "head_dim": 8}}
    sees = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    target = saved(tmp_path, **fields, vision_config={**sees, "intermediate_size": 16})
    model = built(target, text_config={"num_hidden_layers": 2})
    assert model.module.config.text_config.num_hidden_layers == 2
    assert model.module.config.text_config.hidden_size == 16


@pytest.mark.parametrize("kind", ["of_its_own", "llama"])
def test_code_beside_a_configuration_is_never_run(tmp_path, kind):
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Evil: pass", encoding="utf-8"
    )
    auto_map = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    target = saved(tmp_path, model_type=kind, auto_map=auto_map, **TINY)
    if kind == "llama":
        assert type(built(target).module).__name__ == "LlamaForCausalLM"
    else:
        with pytest.raises(InputError, match="code of its own"):
            built(target)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "has no 'model_type'"),
        ('{"model_type": 3}', "has no 'model_type'"),
    ],
)
def test_a_broken_configuration_is_said(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        built(f"hf:{tmp_path}")


def test_wrong_names_are_said_with_the_nearest(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no type of model 'lama', did you mean 'llama'"):
        built("hf:lama")
    with pytest.raises(InputError, match=r"config\.num_hiden_layers is not a field"):
        built("hf:llama", num_hiden_layers=2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    with pytest.raises(InputError, match=r"what lies here under this name is hf:\./saved"):
        built("hf:saved")


VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}


def test_the_picture_of_a_vision_part_is_as_large_as_the_length():
    model = built("hf:clip", length=32, vision_config=VISION)
    inputs = model.inputs(1, 32, CPU)
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    assert model.own_loss(inputs).ndim == 0
    said = model.settings["config.vision_config.image_size"]
    assert said == "32 instead of 224, for the length"
