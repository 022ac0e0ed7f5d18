"""The table of what operators hold inside agrees with the allocator, and knows its limits."""

import pytest
import torch
from torch import nn

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake import operator_samples
from reformer_bench.measure.fake.operators_cpu import TABLE_VERSION, is_known, table_note
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.predict import predict

aten = torch.ops.aten


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def differing(samples):
    compared = [operator_samples._compared(*sample) for sample in samples]
    assert compared
    return [one for one in compared if one.differs]


@pytest.mark.parametrize(
    "samples", ["_reduction_samples", "_index_samples", "_loss_samples", "_list_samples"]
)
def test_operators_hold_what_their_formulas_say(samples, threads):
    with torch.no_grad():
        x = torch.ones(200, 300)
        assert differing(getattr(operator_samples, samples)(x)) == []


@pytest.mark.slow
def test_every_sample_holds_what_its_formula_says(threads):
    assert [one for one in operator_samples.compare_operators() if one.differs] == []


def test_a_wrong_formula_is_told(monkeypatch):
    monkeypatch.setattr(operator_samples, "internal_bytes_on_cpu", lambda *_: 7)
    (one,) = differing([(aten.cumsum.default, (torch.ones(5, 3, dtype=torch.bool), 0))])
    assert (one.expected_bytes, one.measured_bytes) == (7, 5 * 3 * 8)
    assert (one.operator, one.arguments) == ("aten.cumsum.default", "bool[5, 3], 0")


def test_an_operator_in_no_list_is_named_in_the_notes():
    def step(model, phase):
        with phase("forward"):
            torch.linalg.eigvalsh(model(torch.ones(4, 4))).exp()

    (note,) = predict(lambda: nn.Linear(4, 4), step).notes
    assert note.endswith("not counted: aten._linalg_eigh.default")


def test_views_and_operators_that_hold_nothing_are_known():
    for operator in (
        aten.view.default,
        aten.transpose.int,
        aten.embedding.default,
        aten.mm.default,
    ):
        assert is_known(operator)


def test_another_minor_version_is_told():
    assert table_note(f"{TABLE_VERSION}.9+cpu") is None
    assert "2.99.0" in table_note("2.99.0")


@pytest.mark.parametrize(
    "loss", [nn.BCELoss(), nn.MSELoss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.SoftMarginLoss()]
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_keeps_what_it_keeps(loss, reduction):
    loss.reduction = reduction
    seen = []
    for record in (record_fake_allocations, record_cpu_allocations):
        with record() as recording:
            with recording.phase("forward"):
                x = torch.full((40, 50), 0.5, requires_grad=True)
                value = loss(x, torch.ones(40, 50))
            with recording.phase("backward"):
                held = torch.ones(1000)
            del value, held, x
        seen.append(
            [peak.allocated_bytes for peak in recording.timeline.memory("fake-tensor").cold]
        )
    assert seen[0] == seen[1]
