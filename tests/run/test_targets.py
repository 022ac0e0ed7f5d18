"""Cases of anybody's model: their ids, their switches, and predictions equal to measurements."""

import pytest
import torch

from reformer_bench.measure.fake.reads import NotPredictableError
from reformer_bench.measure.profile import without_context
from reformer_bench.run.predict import predict_case
from reformer_bench.run.validate import compare
from reformer_bench.run.workloads import build_workload
from reformer_bench.schema.errors import InputError
from reformer_bench.schema.training import OPTIMIZERS
from tests.targets import target_case, was_imported, write_target

CPU = torch.device("cpu")


@pytest.fixture
def target(tmp_path) -> str:
    return f"{write_target(tmp_path)}:Model"


def gradients_of(case) -> list[torch.Tensor]:
    """The gradients that the optimizer gets in the first step."""
    made = build_workload(case, CPU)
    found = []
    made._optimizer.register_step_pre_hook(
        lambda *_: found.extend(p.grad.clone() for p in made.module.parameters())
    )
    made.step(without_context)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("args.width=24", "args.keep=3"),
        ("train.optimizer=sgd",),
        ("train.optimizer=sgd", "train.optimizer_args.momentum=0.9"),
        ("train.optimizer=adamw", "train.optimizer_args.weight_decay=0.1"),
        *((f"train.optimizer={name}",) for name in OPTIMIZERS if name != "muon"),
        ("train.loss=mean", "workloads=forward"),
        ("optimizer=none",),
        ("train.autocast=bfloat16",),
        ("train.gradient_checkpointing=layers.*",),
        ("train.activation_offload=true",),
        ("train.accumulate=3",),
        ("train.loss=mean",),
        ("train.loss=none",),
        ("workloads=forward",),
        ("workloads=eval",),
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_predictions_equal_measurements_in_every_switch(target, settings):
    assert compare(target_case(target, 48, *settings)).error_bytes == 0


def test_the_id_covers_arguments_and_content_but_not_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one = f"{write_target(tmp_path)}:Model"
    moved = f"{write_target(tmp_path / 'elsewhere')}:Model"
    edited = f"{write_target(tmp_path / 'elsewhere', '# more', 'other.py')}:Model"
    plain = target_case(one)
    assert target_case(moved).id == plain.id
    assert target_case(edited).model_copy(update={"variant": plain.variant}).id != plain.id
    ids = [target_case(one, 32, *s).id for s in (
        (), ("args.width=8",), ("train.accumulate=2",), ("train.optimizer=sgd",),
        ("workloads=eval",), ("workloads=eval", "eval.cache=true"))]  # fmt: skip
    assert len(set(ids)) == len(ids)


def test_switches_that_a_workload_does_not_have_make_no_other_case(target):
    one = target_case(target, 32, "workloads=eval")
    other = target_case(target, 32, "workloads=eval", "train.accumulate=4")
    assert one.id == other.id


def test_accumulated_gradients_are_the_mean_of_the_batches(target):
    # The same batch is used each time, so its mean is itself.
    once = gradients_of(target_case(target, 16))
    thrice = gradients_of(target_case(target, 16, "train.accumulate=3"))
    for one, other in zip(once, thrice, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "switch", ["train.gradient_checkpointing=layers.*", "train.activation_offload=true"]
)
def test_a_technique_changes_no_gradient(target, switch):
    plain = gradients_of(target_case(target, 16, dtype="float64"))
    changed = gradients_of(target_case(target, 16, switch, dtype="float64"))
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one, other)


def test_offloaded_activations_are_not_on_a_gpu(target):
    def activations(*settings):
        case = target_case(target, 256, *settings).model_copy(update={"device": "cuda"})
        return predict_case(case).breakdown.activations_bytes

    resident, offloaded = activations(), activations("train.activation_offload=true")
    # What is left is the loss.
    assert offloaded <= 1024 < 50_000 < resident


def test_inputs_left_on_another_device_are_moved_and_narrowed(tmp_path):
    code = """
class Sound(Model):
    def __init__(self):
        self.module = nn.Linear(4, 4)

    def inputs(self, batch, length, device):
        return {'input': torch.zeros(length, 4)}

    def loss(self, module, inputs):
        return module(**inputs).float().mean()
"""
    path = write_target(tmp_path, code)
    made = build_workload(target_case(f"{path}:Sound", 8, dtype="bfloat16"), CPU)
    assert made._task._inputs["input"].dtype is torch.bfloat16
    made.step(without_context)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Made(Model):\n    def inputs(self, *_): raise ValueError('too\\nlong')",
         "ValueError: too long, at "),
        ("class Made(Model):\n    def loss(self, module, x): return module(x)",
         "is to be a tensor of one number, and is a tensor of shape (1, 32, 16)"),
        ("class Made(Model):\n    def loss(self, module, x): return x.float().mean()",
         "has no gradient"),
        ("class Made(Model):\n    def loss(self, module, x): sys.exit(1)", "ends the program"),
        ("def Made():\n    m = Model(); m.module.to('meta'); return m", "on the device 'meta'"),
        ("class Made(Model):\n    def loss(self, m, x): return m(x).sum() * x.sum().item()",
         "reads a number that no constant decides"),
    ],
)  # fmt: skip
def test_a_step_that_fails_is_said_in_one_line(tmp_path, code, said):
    path = write_target(tmp_path, code)
    with pytest.raises(InputError) as error:
        predict_case(target_case(f"{path}:Made"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_factory_prints_goes_to_stderr(tmp_path, capsys):
    path = write_target(tmp_path, "def made():\n    print('hello')\n    return Model()")
    predict_case(target_case(f"{path}:made"))
    out, err = capsys.readouterr()
    assert (out, "hello" in err) == ("", True)


def test_every_error_names_the_target_and_keeps_its_kind(tmp_path):
    code = """
class Sized(Model):
    def loss(self, module, inputs):
        return module(inputs).unique(dim=0).mean()
"""
    name = f"{write_target(tmp_path, code)}:Sized"
    with pytest.raises(NotPredictableError) as error:
        predict_case(target_case(name))
    assert str(error.value).startswith(f"{name}: cannot be predicted")


def test_notes_say_what_is_not_predicted(target):
    case = target_case(target, 16, "train.compile=true", "train.autocast=bfloat16")
    assert [note.split(" is ")[0] for note in predict_case(case).notes] == ["torch.compile"]
    on_cuda = predict_case(case.model_copy(update={"device": "cuda"}))
    assert [note.split(" is ")[0] for note in on_cuda.notes] == ["torch.compile", "torch.autocast"]
    plain = target_case(target, 16)
    assert predict_case(plain).notes == ()


def test_expanding_a_case_imports_nothing(tmp_path):
    path = write_target(tmp_path)
    target_case(f"{path}:Model")
    assert not was_imported(path)
