"""Factories of a user's own: what they may be, and how what is wrong with them is said."""

import sys

import pytest
import torch

from reformer_bench.peers.targets.load import load_target
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.target import target_config
from tests.targets import write_target

CPU = torch.device("cpu")


def build(path, factory="Model", length=8, **arguments):
    return load_target(target_config(f"{path}:{factory}", arguments))(2, length)


def refusal(path, factory, **arguments) -> str:
    with pytest.raises(InputError) as error:
        build(path, factory, **arguments)
    return str(error.value)


def test_an_object_says_module_inputs_and_loss(tmp_path):
    built = build(write_target(tmp_path), width=8)
    inputs = built.inputs(2, 8, CPU)
    assert inputs.shape == (2, 8)
    assert built.module.emb.weight.shape == (32, 8)
    assert built.own_loss(inputs) == built.module(inputs).square().mean()
    assert built.length_name == "tokens"


LOSSES = {
    "what forward takes, in a tuple": ("x, x", "loss(self, a, b): return (a * b).sum()"),
    "what forward takes, by name": ("dict(b=x, a=x)", "loss(self, a, b): return (a * b).sum()"),
    "the inputs": ("x, x", "loss(self, pair): return (pair[0] * pair[1]).sum()"),
    "module and inputs": ("x, x", "loss(self, module, pair): return (pair[0] * pair[1]).sum()"),
    "a module of any name": ("x", "loss(self, model, one): return one.square().sum()"),
}
"""What a module's own ``inputs`` return, and the head of its ``loss``, for 4 ones of 2."""


@pytest.mark.parametrize("taken", LOSSES)
def test_the_loss_of_a_module_takes(tmp_path, taken):
    inputs, loss = LOSSES[taken]
    code = f"""
class Own(nn.Module):
    def inputs(self, batch, length, device):
        x = torch.full((4,), 2.0, requires_grad=True)
        return {inputs}

    def {loss}
"""
    built = build(write_target(tmp_path, code), "Own")
    assert built.own_loss(built.inputs(2, 8, CPU)) == 16


def test_a_factory_gets_the_sizes_that_it_names(tmp_path):
    path = write_target(tmp_path, "def sized(length, batch): return Model(width=length + batch)")
    assert build(path, "sized", length=8).module.emb.weight.shape == (32, 10)


def test_an_argument_of_that_name_comes_before_the_size(tmp_path):
    path = write_target(tmp_path, "def sized(length): return Model(width=length)")
    assert build(path, "sized", length=4).module.emb.weight.shape == (32, 4)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def made(): return None", "returned a NoneType; expected an nn.Module"),
        ("def made(): return Net(4)", "what Net.forward takes can't be told from the module"),
        ("made = 3", "is a int, not a function or class"),
        ("mode = 3", "has no 'made'"),
        ("def made(width): return Model(width)", "needs an argument 'width': --set args.width=…"),
        ("def made(): sys.exit(3)", "its code ends the program (SystemExit: 3), at "),
        ("def made(): return Model(width='a')", "TypeError: "),
        ("OLD = Net(4)\ndef made():\n    m = Model(); m.module = OLD; return m",
         "its module 'emb' was there before the factory was called"),
        ("OLD = nn.Linear(2, 2)\ndef made():\n    m = Model(); m.module.old = OLD; return m",
         "its module 'old' was there before the factory was called"),
        ("import nothing_of_this_name", "imports 'nothing_of_this_name', which isn't here"),
        ("sys.exit(2)", "fails when imported: its code ends the program"),
        ("def made(:", "fails when imported: SyntaxError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, code, said):
    assert said in refusal(write_target(tmp_path, code), "made")


def test_an_unknown_argument_is_said_with_those_there_are(tmp_path):
    text = refusal(write_target(tmp_path), "Model", wdth=3)
    assert "takes no argument 'wdth', did you mean 'width'? (allowed: width, keep)" in text


def test_activations_without_tensors_may_be_shared(tmp_path):
    code = "ACT = nn.Tanh()\ndef made():\n    m = Model(); m.module.act = ACT; return m"
    assert build(write_target(tmp_path, code), "made").module.act is not None


def test_a_file_that_was_changed_since_is_not_run(tmp_path):
    path = write_target(tmp_path)
    config = target_config(f"{path}:Model", {})
    path.write_text(path.read_text(encoding="utf-8") + "\n# more", encoding="utf-8")
    with pytest.raises(InputError, match="was changed since"):
        load_target(config)


def test_an_edit_within_a_second_is_seen(tmp_path):
    # Python's own cache of compiled files goes by their time, in seconds, and size.
    path = write_target(tmp_path, "def made(): return Model(width=4)")
    assert build(path, "made").module.emb.weight.shape == (32, 4)
    path = write_target(tmp_path, "def made(): return Model(width=8)")
    assert build(path, "made").module.emb.weight.shape == (32, 8)


def test_each_file_sees_its_own_neighbours(tmp_path):
    widths = {"one": 4, "other": 8}
    for folder, width in widths.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sizes_of_it.py").write_text(f"WIDTH = {width}", encoding="utf-8")
        code = "from sizes_of_it import WIDTH\ndef made():\n    import sizes_of_it\n"
        code += "    return Model(width=WIDTH + sizes_of_it.WIDTH)"
        write_target(tmp_path / folder, code)
    for _ in range(2):
        for folder, width in widths.items():
            built = build(tmp_path / folder / "mine.py", "made")
            assert built.module.emb.weight.shape == (32, 2 * width)
    assert str((tmp_path / "one").resolve()) not in sys.path


def test_paths_may_have_spaces_colons_and_any_letters(tmp_path):
    folder = tmp_path / "a b: ü"
    folder.mkdir()
    assert build(write_target(folder, name="mödel.py")).module is not None


@pytest.mark.parametrize("inner", ["", "/"])
def test_a_file_that_is_not_there_is_said(tmp_path, inner):
    (tmp_path / "folder.py").mkdir()
    path = tmp_path / ("folder.py" if inner else "nothing.py")
    with pytest.raises(InputError, match=r"cannot be read .*expected the file of a model"):
        target_config(f"{path}:Model", {})
