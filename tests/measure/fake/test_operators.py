"""The table of what operators hold inside agrees with the allocator, and knows its limits."""

import pytest
import torch
from torch import nn

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake import operator_samples
from reformer_bench.measure.fake.operators_cpu import TABLE_VERSION, is_known, table_note
from reformer_bench.measure.fake.operators_cpu_nothing import HOLDS_NOTHING
from reformer_bench.measure.fake.recording import record_fake_allocations
from reformer_bench.measure.predict import predict
from tests.measure.fake import nothing_samples

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
    "samples",
    ["_reduction_samples", "_index_samples", "_loss_samples", "_list_samples", "_asked_samples"],
)
def test_operators_hold_what_their_formulas_say(samples, threads):
    with torch.no_grad():
        x = torch.ones(200, 300)
        assert differing(getattr(operator_samples, samples)(x)) == []


@pytest.mark.slow
def test_every_sample_holds_what_its_formula_says(threads):
    assert [one for one in operator_samples.compare_operators() if one.differs] == []


@pytest.mark.parametrize("shape", [(3, 5), (200, 300)], ids=["small", "large"])
def test_operators_listed_as_holding_nothing_hold_nothing(shape, threads):
    calls = nothing_samples.samples(*shape)
    assert set(calls) == {packet.__name__ for packet in HOLDS_NOTHING}
    held = {}
    with torch.no_grad():
        for name, (operator, arguments, options) in calls.items():
            operator(*operator_samples._copied(arguments), **options)
            given = operator_samples._copied(arguments)
            with record_cpu_allocations() as recording, recording.phase("forward"):
                out = operator(*given, **options)
            alive = recording.timeline.live_bytes
            held[name] = int(alive.max() - alive[-1]) if len(alive) else 0
            del out
    assert {name: n_bytes for name, n_bytes in held.items() if n_bytes} == {}


def test_copies_of_transposed_matrices_hold_a_block():
    x = torch.ones(200, 300)
    samples = [
        (aten.t_copy.default, (x,)),
        (aten.permute_copy.default, (x, [1, 0])),
        (aten.transpose_copy.int, (x, 0, 1)),
        (aten.alias_copy.default, (x.t(),)),
        (aten.squeeze_copy.default, (x.t(),)),
        (aten.as_strided_copy.default, (x, [300, 200], [1, 300])),
    ]
    with torch.no_grad():
        assert differing(samples) == []


def test_an_empty_product_holds_what_is_measured():
    x = torch.ones(0, 0, dtype=torch.bfloat16)
    assert differing([(aten.mm.default, (x, x))]) == []


def test_a_wrong_formula_is_told(monkeypatch):
    monkeypatch.setattr(operator_samples, "internal_bytes_on_cpu", lambda *_: 7)
    (one,) = differing([(aten.cumsum.default, (torch.ones(5, 3, dtype=torch.bool), 0))])
    assert (one.expected_bytes, one.measured_bytes) == (7, 5 * 3 * 8)
    assert (one.operator, one.arguments) == ("aten.cumsum.default", "bool[5, 3], 0")


def test_an_operator_in_no_list_is_named_in_the_notes():
    def step(model, phase):
        with phase("forward"):
            torch.linalg.eigvals(model(torch.ones(4, 4))).abs()

    (note,) = predict(lambda: nn.Linear(4, 4), step).notes
    assert note.endswith("not counted: aten.linalg_eig.default")


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
