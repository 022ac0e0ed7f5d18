"""Predictions are what the CPU's allocator measures; in a run, what doesn't fit isn't started."""

import pytest

from reformer_bench.model import ReformerLM
from reformer_bench.run.longest import longest_that_fits
from reformer_bench.run.predict import predict_all, predict_case, predicted_record
from reformer_bench.run.session import Session
from reformer_bench.run.validate import compare, random_cases
from reformer_bench.schema.case import Case
from reformer_bench.schema.model import PRESETS, preset
from reformer_bench.schema.prediction import NotPredicted
from reformer_bench.schema.record import Outcome
from reformer_bench.schema.suite import DeviceTable
from reformer_bench.store import RunWriter
from tests.builders import case, environment, plan, prediction, record_of, run_info

SMALL = {"d_model": 24, "d_ff": 96, "n_heads": 2, "n_layers": 2, "chunk_length": 16}


def asked(name: str, workload: str = "train_step", length: int = 331, **changes) -> Case:
    optimizer = changes.pop("optimizer", "adam") if workload == "train_step" else "none"
    model = preset(name, **{**SMALL, "max_length": 2**20, **changes})
    return Case(
        suite="tests",
        variant=name,
        workload=workload,
        model=model,
        optimizer=optimizer,
        length=length,
    )


@pytest.mark.parametrize("workload", ["train_step", "forward", "attention"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_predicted_to_the_byte(name, workload):
    found = compare(asked(name, workload))
    assert [p.allocated_bytes for p in found.predicted.cold + found.predicted.warm] == [
        p.allocated_bytes for p in found.measured.cold + found.measured.warm
    ]
    assert found.predicted.breakdown == found.measured.breakdown


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adafactor"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_and_optimizers_are_predicted_to_the_byte(dtype, optimizer):
    found = compare(asked("reformer", dtype=dtype, optimizer=optimizer, dropout=0.1))
    assert found.error_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["reversible", "checkpointed"])
def test_offloaded_parameters_their_gradients_and_state_are_not_on_a_gpu(residual):
    predicted = {
        (offload, n_layers): predict_case(
            asked("reformer", residual=residual, parameter_offload=offload, n_layers=n_layers)
            .model_copy(update={"device": "cuda"})
        ).memory
        for offload in ("none", "cpu")
        for n_layers in (3, 9)
    }  # fmt: skip
    grown = {
        offload: predicted[offload, 9].peak_allocated_bytes
        - predicted[offload, 3].peak_allocated_bytes
        for offload in ("none", "cpu")
    }
    per_layer = 4 * sum(
        p.numel() for p in ReformerLM(preset("reformer", **SMALL)).layers[0].parameters()
    )
    # Parameters, gradients and Adam's two moments of six layers.
    assert grown["none"] >= 6 * 4 * per_layer
    kept = -(-331 * SMALL["d_model"] * 4 // 512) * 512
    # A checkpoint keeps each sublayer's input.
    assert grown["cpu"] == (6 * 2 * kept if residual == "checkpointed" else 0)


@pytest.mark.parametrize("workload", ["train_step", "forward"])
def test_products_inside_the_fused_kernel_are_counted(workload):
    sizes = {"d_model": 32, "n_heads": 2, "chunk_length": 16, "n_hashes": 4, "ff_chunks": 1}
    flops = {
        (kernel, n_hashes): predict_case(
            asked("reformer", workload, 512, lsh_kernel=kernel, **{**sizes, "n_hashes": n_hashes})
            .model_copy(update={"device": "cuda"})
        ).flops
        for kernel in ("eager", "triton")
        for n_hashes in (1, 4)
    }  # fmt: skip
    # Its backward pass computes scores and their gradients twice, for queries and for keys.
    assert flops["eager", 4] <= flops["triton", 4] < 1.1 * flops["eager", 4]
    rounds = {kernel: flops[kernel, 4] - flops[kernel, 1] for kernel in ("eager", "triton")}
    # Of nine products of a training step's two passes and one recomputation, eleven.
    more = 11 / 9 if workload == "train_step" else 1.0
    assert rounds["triton"] == pytest.approx(more * rounds["eager"], rel=0.05)


def test_buffers_of_each_thread_are_counted():
    found = [compare(asked("flash-transformer", "attention"), n_threads=n) for n in (1, 2)]
    assert [f.error_bytes for f in found] == [0, 0]
    assert found[1].predicted.peak_allocated_bytes > found[0].predicted.peak_allocated_bytes


@pytest.mark.slow
def test_random_configurations_are_predicted_to_the_byte():
    assert [found.error_bytes for found in map(compare, random_cases(4, seed=7))] == [0] * 4


def test_the_same_seed_draws_the_same_cases():
    ids = [[c.id for c in random_cases(5, seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("attention", ["lsh", "local", "memory_efficient"], ids=lambda name: name)
@pytest.mark.parametrize("residual", ["reversible", "standard"])
def test_following_repeated_work_once_changes_nothing(attention, residual):
    one = asked(
        "reformer", length=97, attention=attention, residual=residual, ff_chunks=3, loss_chunks=2
    )
    once, each = predict_case(one), predict_case(one, follow_all=True)
    assert once.memory == each.memory
    assert once.flops == each.flops


def test_a_million_tokens_of_full_attention_are_terabytes():
    assert predict_case(asked("transformer", length=2**20)).peak_bytes > 2**42


def test_cuda_counts_blocks_and_the_workspace():
    on_cuda = asked("flash-transformer").model_copy(update={"device": "cuda"})
    on_cpu = predict_case(asked("flash-transformer"))
    assert predict_case(on_cuda).peak_bytes > on_cpu.memory.warm[0].allocated_bytes + 8_000_000


@pytest.mark.parametrize(
    ("peak", "budget", "expected"),
    [
        (lambda n: 1000 * n, 64_000 * 100, 6400),
        (lambda n: 2**20 + 8 * n * n, 2**30, 11_581),
        (lambda n: 2**20 + 8 * n * n, 2**20 + 8 * 63 * 63, None),
        (lambda n: 1, 1, 2**16),
    ],
    ids=["linear", "quadratic", "not even the shortest", "everything"],
)
def test_the_longest_that_fits_is_found_in_few_steps(peak, budget, expected):
    found = longest_that_fits(peak, budget, limit=2**16)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert found.peak_bytes == peak(found.length) <= budget
    assert expected * (1 - 1 / 200) - 64 <= found.length <= expected
    assert found.n_predictions <= 12
    assert found.too_long is None or peak(found.too_long) > budget


MIB = 2**20


class Started:
    """An executor that keeps what it was asked to run; every case ends well."""

    takes_all = False

    def __init__(self) -> None:
        self.cases = []

    def run(self, orders):
        for order in orders:
            self.cases.append(order.case)
            yield record_of(order.case)

    def describe(self, device):
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.fixture
def writer(tmp_path):
    with RunWriter(tmp_path / "run", run_info()) as writer:
        yield writer


def run(writer, cases, predictions, limits=None, spent_s=0.0, **changes):
    executor = Started()
    session = Session(
        plan(cases, limits),
        executor,
        writer,
        run_info(**changes),
        predictions=predictions,
        spent_s=spent_s,
    )
    for _ in session.run():
        pass
    return executor.cases, session.records


def test_a_case_predicted_over_the_budget_is_not_started_and_says_how_much(writer):
    cases = [case(length=n) for n in (32, 64, 128)]
    predictions = {c.id: prediction(c.length * MIB) for c in cases}
    started, records = run(writer, cases, predictions, memory_budget_bytes=64 * MIB)
    # At the budget exactly, it fits.
    assert started == cases[:2]
    assert records[2].outcome is Outcome.OVER_BUDGET
    assert records[2].message == (
        "not started: predicted to take 128 MiB, more than the 64 MiB available"
    )
    assert [r.memory.predicted_peak_bytes for r in records] == [n * MIB for n in (32, 64, 128)]


def test_without_a_budget_the_device_is_the_budget(writer):
    one = case()
    device = environment(device_memory_bytes=MIB)
    _, (found,) = run(writer, [one], {one.id: prediction(MIB + 1)}, environment=device)
    assert found.outcome is Outcome.OVER_BUDGET


def test_a_case_that_is_not_started_for_another_reason_has_its_prediction_too(writer):
    one = case()
    limits = DeviceTable(total_time_s=1.0)
    _, (found,) = run(writer, [one], {one.id: prediction(5)}, limits, spent_s=2.0)
    assert found.outcome is Outcome.TIMEOUT
    assert found.memory.predicted_peak_bytes == 5


def test_a_case_that_can_not_be_predicted_is_started(writer):
    one = case()
    started, (found,) = run(writer, [one], {one.id: NotPredicted("no")}, memory_budget_bytes=1)
    assert started == [one]
    assert found.memory.predicted_peak_bytes is None


@pytest.mark.parametrize(
    ("given", "budget", "outcome"),
    [
        (prediction(MIB), MIB, Outcome.OK),
        (prediction(MIB), MIB - 1, Outcome.OVER_BUDGET),
        (prediction(MIB), None, Outcome.OK),
        (NotPredicted("reads a value"), None, Outcome.ERROR),
    ],
    ids=["fits exactly", "one byte too many", "no budget", "not predictable"],
)
def test_a_record_of_a_prediction_has_an_outcome(given, budget, outcome):
    found = predicted_record(case(), given, environment(), budget)
    assert found.outcome is outcome
    assert found.timing is None
    assert (found.message is None) is (outcome is Outcome.OK)


@pytest.mark.slow
def test_workers_predict_each_case_under_its_own_id():
    cases = [case(length=n) for n in range(16, 25)]
    found = predict_all(cases)
    assert set(found) == {c.id for c in cases}
    peaks = [found[c.id].peak_bytes for c in cases]
    assert None not in peaks
    assert peaks[0] < peaks[-1]
