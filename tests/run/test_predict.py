"""Predicted cases: equal to what the CPU's allocator measures, and the same however followed."""

import pytest

from reformer_bench.model import ReformerLM
from reformer_bench.run.longest import longest_that_fits
from reformer_bench.run.predict import predict_case
from reformer_bench.run.validate import compare, random_cases
from reformer_bench.schema.case import Case
from reformer_bench.schema.model import PRESETS, preset

SMALL = {"d_model": 24, "d_ff": 96, "n_heads": 2, "n_layers": 2, "chunk_length": 16}


def case(name: str, workload: str = "train_step", length: int = 331, **changes) -> Case:
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
    found = compare(case(name, workload))
    assert [p.allocated_bytes for p in found.predicted.cold + found.predicted.warm] == [
        p.allocated_bytes for p in found.measured.cold + found.measured.warm
    ]
    assert found.predicted.breakdown == found.measured.breakdown


@pytest.mark.parametrize("optimizer", ["adam", "adafactor"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_and_optimizers_are_predicted_to_the_byte(dtype, optimizer):
    found = compare(case("reformer", dtype=dtype, optimizer=optimizer, dropout=0.1))
    assert found.error_bytes == 0


@pytest.mark.parametrize("residual", ["reversible", "checkpointed"])
def test_offloaded_parameters_their_gradients_and_state_are_not_on_a_gpu(residual):
    predicted = {
        (offload, n_layers): predict_case(
            case("reformer", residual=residual, parameter_offload=offload, n_layers=n_layers)
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
            case("reformer", workload, 512, lsh_kernel=kernel, **{**sizes, "n_hashes": n_hashes})
            .model_copy(update={"device": "cuda"})
        ).flops
        for kernel in ("eager", "triton")
        for n_hashes in (1, 4)
    }  # fmt: skip
    assert flops["triton", 4] == pytest.approx(flops["eager", 4], rel=0.05)
    rounds = {kernel: flops[kernel, 4] - flops[kernel, 1] for kernel in ("eager", "triton")}
    assert rounds["triton"] == pytest.approx(rounds["eager"], rel=0.05)


def test_buffers_of_each_thread_are_counted():
    found = [compare(case("flash-transformer", "attention"), n_threads=n) for n in (1, 2)]
    assert [f.error_bytes for f in found] == [0, 0]
    assert found[1].predicted.peak_allocated_bytes > found[0].predicted.peak_allocated_bytes


def test_random_configurations_are_predicted_to_the_byte():
    assert [found.error_bytes for found in map(compare, random_cases(4, seed=7))] == [0] * 4


def test_the_same_seed_draws_the_same_cases():
    ids = [[c.id for c in random_cases(5, seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("attention", ["lsh", "local", "memory_efficient"], ids=lambda name: name)
@pytest.mark.parametrize("residual", ["reversible", "standard"])
def test_following_repeated_work_once_changes_nothing(attention, residual):
    one = case(
        "reformer", length=97, attention=attention, residual=residual, ff_chunks=3, loss_chunks=2
    )
    once, each = predict_case(one), predict_case(one, follow_all=True)
    assert once.memory == each.memory
    assert once.flops == each.flops


def test_a_million_tokens_of_full_attention_are_terabytes():
    assert predict_case(case("transformer", length=2**20)).peak_bytes > 2**42


def test_cuda_counts_blocks_and_the_workspace():
    on_cuda = case("flash-transformer").model_copy(update={"device": "cuda"})
    on_cpu = predict_case(case("flash-transformer"))
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
