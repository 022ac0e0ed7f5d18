"""Compares predicted with measured peaks on random small configurations."""

from __future__ import annotations

import gc
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reformer_bench.measure.allocator.cpu import record_cpu_allocations
from reformer_bench.measure.fake import operator_samples
from reformer_bench.measure.fake.operator_samples import OperatorComparison
from reformer_bench.measure.profile import record_steps
from reformer_bench.run.comparison import Comparison
from reformer_bench.run.predict import predict_case
from reformer_bench.run.workloads import Workload, build_workload, prepare
from reformer_bench.schema.case import Case
from reformer_bench.schema.case import Workload as WorkloadName
from reformer_bench.schema.model import Attention, ModelConfig, Positions, Residual
from reformer_bench.schema.record import AllocatorMemory

_WORKLOADS: tuple[WorkloadName, ...] = ("train_step", "forward", "attention")


def compare(case: Case, *, n_threads: int = 1) -> Comparison:
    """Predict a case and run it, on the CPU, with that many threads.

    Small cases run best on one thread; on a busy machine several wait for each other.
    """
    with _threads(n_threads):
        return Comparison(case, predict_case(case).memory, measured_memory(case))


def compare_operators(
    names: Collection[str] = (), *, n_threads: int = 1
) -> list[OperatorComparison]:
    """Compare, for samples of operators on the CPU with that many threads, what each holds inside
    with what the table of formulas says; with names, of these operators only.
    """
    with _threads(n_threads):
        return list(operator_samples.compare_operators(names))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Have torch compute with that many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measured_memory(case: Case) -> AllocatorMemory:
    """Measure what a build, a cold and a warm step of a case take, in this process."""
    return measured_workload(case)[0]


def measured_workload(case: Case) -> tuple[AllocatorMemory, dict[str, str]]:
    """Return what ``measured_memory`` does, and the settings of the workload."""
    prepare(case)
    gc.collect()
    settings: dict[str, str] = {}

    def build() -> Workload:
        workload = build_workload(case, torch.device("cpu"))
        settings.update(workload.settings)
        return workload

    with record_cpu_allocations() as recording:
        record_steps(recording, build)
    memory = recording.allocator_memory()
    assert memory is not None
    return memory, settings


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Yield small cases that differ in every switch and width; the same ones for the same seed."""
    draw = random.Random(seed)
    for number in range(count):
        workload = _WORKLOADS[number % 3]
        optimizers = ("adam", "adafactor", "none")
        yield Case(
            suite="validate",
            variant=f"random-{number}",
            workload=workload,
            model=_random_model(draw),
            optimizer=draw.choice(optimizers) if workload == "train_step" else "none",
            batch=draw.choice((1, 1, 2, 3)),
            length=draw.choice((draw.randint(1, 64), draw.randint(65, 700), 256, 512)),
            seed=draw.randrange(2**16),
        )


def _random_model(draw: random.Random) -> ModelConfig:
    """A small model, its widths odd as often as even."""
    heads = draw.choice((1, 2, 3, 4, 5))
    width = draw.choice((4, 7, 12, 16, 24, 33))
    d_model = draw.choice((heads * width, heads * width, 48, 57))
    residual = draw.choice(list(Residual))
    kinds = draw.choices(list(Attention), k=draw.choice((1, 1, 2)))
    switches: dict[str, Any] = {
        "vocab_size": draw.choice((2, 17, 64, 101, 256)),
        "d_model": d_model,
        "d_head": width,
        "d_ff": draw.choice((2 * d_model, 4 * d_model + 1, 8 * d_model)),
        "n_layers": draw.choice((1, 2, 3)),
        "n_heads": heads,
        "head_groups": draw.choice((None, 1)),
        "activation": draw.choice(("gelu", "relu")),
        "attention": tuple(kinds),
        "causal": True if Attention.SDPA in kinds else draw.choice((True, True, False)),
        "shared_qk": draw.choice((False, True)),
        "shared_qk_scale": draw.choice(("none", "sqrt")),
        "chunk_length": draw.choice((8, 13, 32, 64)),
        "local_chunk_length": draw.choice((8, 11, 32)),
        "n_hashes": draw.choice((1, 2, 4)),
        "n_buckets": draw.choice((None, None, 1, 6, 70, (4, 6))),
        "attend_across_buckets": draw.choice((False, True)),
        "count_duplicates": draw.choice((True, True, False)),
        "look_back": draw.choice(("paper", "ring")),
        "lone_tokens": draw.choice(("exact", "exact", "rounded")),
        "hash_seed": draw.choice((None, 3)),
        "lsh_kernel": draw.choice(("auto", "eager")),
        "residual": residual,
        "streams": draw.choice(("fixed", "float")),
        "ff_chunks": draw.choice((1, 3, 16)),
        "loss_chunks": draw.choice((1, 3, 16)),
        "dropout": draw.choice((0.0, 0.0, 0.1)),
        "positions": draw.choice(list(Positions)),
        "max_length": 1024,
        "dtype": draw.choice(("float32", "float32", "bfloat16", "bfloat16", "float64")),
    }
    if residual is Residual.REVERSIBLE:
        switches["merge_streams"] = draw.choice(("concat", "mean"))
    if residual is not Residual.STANDARD:
        switches["parameter_offload"] = draw.choice(("none", "none", "cpu"))
    return ModelConfig(**switches)
