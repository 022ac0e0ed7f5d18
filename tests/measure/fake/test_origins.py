"""What is alive at a peak is told by operator, line and module, and adds up to the peak."""

import linecache

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import reformer_bench
from reformer_bench.measure.fake.devices import device_model
from reformer_bench.measure.fake.origins import shown_path
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.predict import follow
from reformer_bench.run.predict import predict_case
from reformer_bench.schema.explanation import Explanation, Holder
from tests.builders import case

ROWS, WIDTH = 64, 48
BYTES = 4 * ROWS * WIDTH


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return torch.tanh(self.inner(x)) * torch.sigmoid(x)


class Model(nn.Module):
    def __init__(self, recompute: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.recompute = recompute

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return x


def train(module, phase) -> None:
    x = torch.ones(ROWS, WIDTH)
    with phase("forward"):
        loss = module(x).square().mean()
    with phase("backward"):
        loss.backward()
        del loss
    if not hasattr(module, "adam"):
        module.adam = torch.optim.Adam(module.parameters())
    with phase("optimizer"):
        module.adam.step()
        module.adam.zero_grad()


def explained(build=Model, step=train) -> Explanation:
    found = reformer_bench.predict(build, step, explain=True).explanation
    assert found is not None
    return found


def source(line: str | None) -> str:
    """The text of a line of this file; "" for none, or one of another."""
    path, _, number = (line or "").rpartition(":")
    return linecache.getline(__file__, int(number)).strip() if path and path in __file__ else ""


def made_by(found: Explanation, operator: str, **fields) -> list[Holder]:
    fields["operator"] = operator
    return [h for h in found.holders if all(getattr(h, name) == v for name, v in fields.items())]


@pytest.mark.parametrize("recompute", [False, True])
def test_holders_add_up_to_the_peak_and_change_no_event(recompute):
    plain = follow(lambda: Model(recompute), train).timeline
    recording = follow(lambda: Model(recompute), train, explain=True)
    assert recording.timeline.address.tolist() == plain.address.tolist()
    assert recording.timeline.delta_bytes.tolist() == plain.delta_bytes.tolist()
    assert recording.timeline.labels == plain.labels
    found = recording.explanation()
    assert found is not None
    assert found.peak_bytes == recording.prediction().peak_bytes
    assert sum(h.held_bytes for h in found.holders) == found.peak_bytes
    for kind in ("parameters", "gradients", "optimizer", "activations", "temporaries"):
        held = sum(h.held_bytes for h in found.holders if h.kind == kind)
        assert held == getattr(recording.prediction().breakdown, f"{kind}_bytes")


def test_a_prediction_has_none_unless_it_is_asked_for():
    assert reformer_bench.predict(Model, train).explanation is None


def test_activations_are_told_by_operator_line_module_and_shape():
    kept = made_by(explained(), "tanh", kind="activations")
    assert [h.module for h in kept] == ["blocks.0", "blocks.1", "blocks.2"]
    for holder in kept:
        assert source(holder.line) == "return torch.tanh(self.inner(x)) * torch.sigmoid(x)"
        assert holder.your_line is None
        assert (holder.shape, holder.dtype) == ((ROWS, WIDTH), "float32")
        assert (holder.held_bytes, holder.count) == (BYTES, 1)


def test_parameters_gradients_and_optimizer_state_are_told_by_name():
    found = explained()
    named = {(h.kind, h.module, h.tensor) for h in found.holders if h.tensor}
    for number in range(3):
        module = f"blocks.{number}.inner"
        assert ("parameters", module, "weight") in named
        assert ("optimizer", module, "weight[exp_avg]") in named
        assert ("optimizer", module, "bias[exp_avg_sq]") in named


def summed(module, phase, rows: int = ROWS) -> None:
    x = torch.ones(rows, WIDTH)
    with phase("forward"):
        loss = module(x).sum()
    with phase("backward"):
        loss.backward()


def one_row(module, phase) -> None:
    summed(module, phase, 1)


def test_a_gradient_is_the_backward_of_its_forward_line():
    # With one row gradients outweigh activations, and the peak has all but the last.
    gradients = [h for h in explained(step=one_row).holders if h.kind == "gradients"]
    weights = [h for h in gradients if h.tensor == "weight"]
    assert [h.module for h in weights] == ["blocks.2.inner", "blocks.1.inner", "blocks.0.inner"]
    for holder in weights:
        assert (holder.operator, holder.backward_of) == ("mm", "addmm")
        assert "torch.tanh(self.inner(x))" in source(holder.line)


def test_temporaries_of_a_backward_pass_are_told_by_the_forward_line_and_module():
    found = explained()
    assert found.phase == "backward"
    temporaries = [h for h in found.holders if h.kind == "temporaries" and h.backward_of]
    assert temporaries
    for holder in temporaries:
        assert source(holder.line).startswith(("return torch.tanh", "loss = module(x)"))
    assert {h.module for h in temporaries} <= {"", "blocks.2"}


def test_recomputation_is_told_as_such_in_its_module():
    # A sum's backward pass holds little, so that the peak is in a block.
    found = explained(lambda: Model(recompute=True), summed)
    again = [h for h in found.holders if h.recomputed]
    assert {h.operator for h in again} >= {"tanh", "sigmoid"}
    for holder in again:
        assert holder.kind == "temporaries"
        assert holder.module.startswith("blocks.")
        assert source(holder.line).startswith("return torch.tanh")
    # The gradient of what was recomputed isn't recomputed itself.
    assert not any(h.recomputed and h.backward_of for h in found.holders)
    assert any(h.backward_of == "mul" for h in found.holders)
    assert not any(h.recomputed for h in explained(step=summed).holders)


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_in_pytorch_s_own_modules_is_told_by_the_line_that_called_them(reentrant):
    def step(module, phase) -> None:
        x = torch.ones(ROWS, WIDTH, requires_grad=True)
        with phase("forward"):
            loss = checkpoint(module, x, use_reentrant=reentrant).sum()
        with phase("backward"):
            loss.backward()

    found = explained(lambda: nn.Sequential(nn.Linear(WIDTH, 9 * WIDTH), nn.Softplus()), step)
    (wide,) = made_by(found, "addmm")
    assert wide.held_bytes == 9 * BYTES
    assert wide.recomputed
    assert wide.backward_of is None
    assert wide.module == "0"
    assert source(wide.line) == "loss = checkpoint(module, x, use_reentrant=reentrant).sum()"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        wide = torch.cat([grad] * 9)
        return wide[: len(grad)] * 2


class Inner(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        return self.inner(x)


def test_a_backward_pass_written_in_python_is_told_by_its_own_line():
    def step(module, phase) -> None:
        x = torch.ones(ROWS, WIDTH, requires_grad=True)
        with phase("forward"):
            y = module(x).sum()
        with phase("backward"):
            y.backward()

    found = explained(Outer, step)
    (wide,) = made_by(found, "cat")
    assert source(wide.line) == "wide = torch.cat([grad] * 9)"
    assert wide.held_bytes == 9 * BYTES
    # That of the forward pass: when the backward pass runs, no module does.
    assert wide.module == "inner"
    assert not wide.recomputed
    assert wide.backward_of is None


def test_a_package_tells_its_line_and_yours(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "made_elsewhere.py").write_text("def widened(x):\n    return x.repeat(9, 1)\n")
    monkeypatch.syspath_prepend(folder)
    from made_elsewhere import widened

    def step(module, phase) -> None:
        with phase("forward"):
            widened(torch.ones(ROWS, WIDTH))

    (wide,) = made_by(explained(lambda: nn.Linear(1, 1), step), "repeat", inside=False)
    assert wide.line == "made_elsewhere.py:2"
    assert source(wide.your_line) == "widened(torch.ones(ROWS, WIDTH))"


def test_the_moment_of_the_peak_is_the_operator_that_reached_it():
    def step(module, phase) -> None:
        with phase("forward"):
            x = torch.ones(50, 70)
            module(x[:, :1])
            x.logsumexp(-1)

    found = explained(lambda: nn.Linear(1, 1), step)
    assert (found.phase, found.step) == ("forward", "warm")
    assert (found.operator, found.inside, found.module) == ("logsumexp", True, "")
    assert source(found.line) == "x.logsumexp(-1)"
    assert sum(h.held_bytes for h in found.holders if h.inside) == 50 * 70 * 4 + 50 * 4


def test_a_peak_of_the_first_step_or_of_the_build_is_told_as_such():
    seen: list[nn.Module] = []

    def step(module, phase) -> None:
        with phase("forward"):
            torch.ones(1 if seen else ROWS)
        seen.append(module)

    first = explained(lambda: nn.Linear(1, 1), step)
    assert (first.step, first.phase, first.peak_bytes) == ("cold", "forward", 4 * (2 + ROWS))

    def build() -> nn.Module:
        torch.ones(2 * ROWS)
        return nn.Linear(1, 1)

    built = explained(build, step)
    assert (built.step, built.phase, built.operator) == ("cold", "build", "ones")
    assert source(built.line) == "torch.ones(2 * ROWS)"


def test_what_was_there_before_the_only_phase_is_explained():
    def step(module, phase) -> None:
        x = torch.ones(ROWS)
        x * 2 * 2
        with phase("forward"):
            x.view(-1)

    found = explained(nn.Identity, step)
    assert [(h.operator, h.held_bytes) for h in found.holders] == [("ones", 4 * ROWS)]
    assert found.operator == "ones"


def test_a_step_without_memory_has_nothing_to_explain():
    def step(module, phase) -> None:
        with phase("forward"):
            pass

    found = explained(nn.Identity, step)
    assert (found.peak_bytes, found.holders, found.operator) == (0, (), "nothing")


def work(into: torch.Tensor) -> None:
    half = into[: ROWS // 2] * 2
    into.add_(torch.cat([half, half]).exp())


@pytest.mark.parametrize("once", [True, False])
def test_work_that_is_followed_once_opens_up_into_its_parts_at_its_place(once):
    with record_fake_allocations(explain=True) as recording:
        for step in (0, 1):
            with recording.phase("forward", step), recording.step(step, nn.Module()):
                into, kept = torch.ones(ROWS, WIDTH), []
                for layer in range(3):
                    with recording.at(f"layers.{layer}"):
                        if once:
                            recording.once("work", lambda into=into: work(into))
                        else:
                            work(into)
                        # So that each layer's peak is above the one before.
                        kept.append(torch.ones(1))
                del into, kept
    found = recording.explanation()
    assert found is not None
    assert found.module == "layers.2"
    at_work = [h for h in found.holders if h.module == "layers.2"]
    held = {(h.operator, h.held_bytes) for h in at_work}
    assert held == {("mul", BYTES // 2), ("cat", BYTES), ("exp", BYTES)}
    assert all(source(h.line) for h in at_work)
    assert sum(h.held_bytes for h in found.holders) == found.peak_bytes


@pytest.mark.parametrize(
    "variant", [pytest.param("reformer", marks=pytest.mark.slow), "reversible-transformer"]
)
def test_our_own_models_are_explained_alike_however_repetitions_are_followed(variant):
    # Two layers, so that the second's work is written from the first's.
    asked = case(variant, model={"n_layers": 2})
    once = predict_case(asked, explain=True)
    each = predict_case(asked, explain=True, follow_all=True)
    assert once.explanation == each.explanation
    assert once.explanation is not None
    assert sum(h.held_bytes for h in once.explanation.holders) == once.peak_bytes


def test_what_the_libraries_of_a_gpu_keep_is_told():
    found = reformer_bench.predict(
        Model, train, device=device_model("cuda", workspace_bytes=2**20), explain=True
    ).explanation
    assert found is not None
    (workspace,) = made_by(found, "workspace of the device's libraries")
    assert workspace.held_bytes == 2**20
    assert sum(h.held_bytes for h in found.holders) == found.peak_bytes


def test_paths_are_shown_as_people_know_them(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert shown_path(str(tmp_path / "train.py")) == "train.py"
    assert shown_path("/x/lib/python3.11/site-packages/torchvision/ops.py") == "torchvision/ops.py"
    assert shown_path(reformer_bench.__file__) == "reformer_bench/__init__.py"
    assert shown_path("<stdin>") == "<stdin>"
    assert shown_path("/a/b.py") == "/a/b.py"
