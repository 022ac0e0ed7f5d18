"""Each claim both ways: records that should support it, and records that should refute it."""

from collections.abc import Callable
from typing import Any

import pytest

from reformer_bench.analysis.claims import CLAIMS, bounds_text, judge_claims
from reformer_bench.analysis.judging import Expectation, Outcome, Verdict, judged, power
from reformer_bench.analysis.scaling import Censored, Point, fit_power
from reformer_bench.spec.record import Outcome as Ended
from reformer_bench.spec.record import Quality, Record
from reformer_bench.spec.units import GIB, MIB
from tests.report.builders import as_predicted, environment, record

FIXED = 120 * MIB  # What builders.memory() takes for parameters, gradients and optimizer state.
LENGTHS = [2**power for power in range(9, 15)]
Cost = Callable[[int], float]


def made(suite: str, variant: str, activations: float, ms: float = 100.0, **case: Any) -> Record:
    """A record with given activation memory, in MiB, and time."""
    peak = int(FIXED + activations * MIB)
    samples = [ms, ms * 1.001]
    return record(variant, peak=max(peak, 8 * 30 * MIB), samples_ms=samples, suite=suite, **case)


def attention_sweep(kind: str, memory: Cost, time: Cost) -> list[Record]:
    return [
        made(
            "attention-scaling",
            kind,
            200 * memory(n // 512),
            time(n // 512),
            length=n,
            workload="attention",
            model={"attention": kind, "residual": "standard"},
        )
        for n in LENGTHS
    ]


def attention_scaling(full: int = 2, lean: int = 1, lsh: int = 1) -> list[Record]:
    return [
        *attention_sweep("full", lambda n: n**full, lambda n: n**2),
        *attention_sweep("memory_efficient", lambda n: n**lean, lambda n: n**2),
        *attention_sweep("lsh", lambda n: n**lsh, lambda n: n),
    ]


def depth_scaling(reversible: float = 0.0, standard: float = 1.0) -> list[Record]:
    return [
        made(
            "depth-scaling",
            f"{kind}-{n}",
            200 * n**k,
            model={"n_layers": n, "residual": kind},
        )
        for kind, k in (("reversible", reversible), ("standard", standard))
        for n in (2, 4, 8, 16)
    ]


def ff_chunks(chunked: float = 0.0, whole: float = 1.0) -> list[Record]:
    return [
        made("ff-chunks", f"{c}-{f}", 200 * (f / 512) ** k, model={"d_ff": f, "ff_chunks": c})
        for c, k in ((64, chunked), (1, whole))
        for f in (512, 1024, 2048, 4096)
    ]


PRESETS = {
    "transformer": (2, 1, 1),
    "reversible-transformer": (2, 0, 1),
    "chunked-reversible-transformer": (2, 0, 0),
    "lsh-transformer": (1, 1, 1),
    "reformer": (1, 0, 0),
}


def table_3(**changed: tuple[int, int, int]) -> list[Record]:
    sizes = [
        *((n, 2, 512) for n in (256, 512, 1024, 2048)),
        *((n, layers, 512) for n in (512, 2048) for layers in (4, 8)),
        *((256, 2, d_ff) for d_ff in (2048, 4096, 8192)),
    ]
    powers = PRESETS | {name.replace("_", "-"): row for name, row in changed.items()}
    return [
        made(
            "table-3" if d_ff == 512 and n > 256 else "table-3-width",
            name,
            200 * (n / 256) ** k[0] * (layers / 2) ** k[1] * (d_ff / 512) ** k[2],
            length=n,
            model={"n_layers": layers, "d_ff": d_ff},
        )
        for name, k in powers.items()
        for n, layers, d_ff in sizes
    ]


def fixed_tokens(full: float = 1.0, lsh: float = 0.0) -> list[Record]:
    kinds = [("memory_efficient", 4, full), *(("lsh", r, lsh) for r in (1, 2, 4, 8))]
    return [
        made(
            "fixed-tokens",
            f"{kind}-{r}",
            200,
            100 * (n / 512) ** k,
            length=n,
            batch=LENGTHS[-1] // n,
            model={"attention": kind, "n_hashes": r},
        )
        for kind, r, k in kinds
        for n in LENGTHS
    ]


def hash_rounds(error: float = -0.5) -> list[Record]:
    made_ones = []
    for r in (1, 2, 4, 8, 16):
        one = made("hash-rounds", f"r-{r}", 200, 10.0 * r, model={"n_hashes": r})
        quality = [
            Quality(inputs=kind, relative_error=r**k, mass_caught=1 - 0.9 * r**k, n_queries=9)
            for kind, k in (("planted", error), ("random", -0.1))
        ]
        made_ones.append(one.model_copy(update={"quality": tuple(quality)}))
    return made_ones


def million(peak: int) -> list[Record]:
    return [record("reformer", 2**20, peak=peak, suite="million")]


def deep(peak: int = 8 * GIB, growth: float = 0.0) -> list[Record]:
    size = {"d_model": 1024, "d_ff": 4096, "n_heads": 8, "n_layers": 20}
    small = {"d_model": 64, "n_heads": 1}
    return [
        record("paper-20", 65_536, peak=peak, suite="deep-64k", model=size),
        *(
            made(
                "deep-64k",
                f"small-{n}",
                200 * n**growth,
                length=65_536,
                model={**small, "n_layers": n},
            )
            for n in (2, 4, 8, 20)
        ),
    ]


def swapped(growth: float = 0.0, slower: float = 1.1) -> list[Record]:
    return [
        record(
            f"{offload}-{n}",
            tokens,
            peak=int(2 * GIB * n ** (growth if offload == "cpu" else 0.9)),
            samples_ms=[100.0 * n * (slower if offload == "cpu" else 1.0)],
            device="cuda",
            suite="param-offload",
            model={"n_layers": n, "parameter_offload": offload},
        )
        for offload in ("none", "cpu")
        for n in (2, 4, 8)
        for tokens in (1024, 16_384)
    ]


def verdict(claim: str, records: list[Record]) -> Verdict:
    return next(found for found in judge_claims(records) if found.claim.id == claim)


SUPPORTING = {
    "quadratic-full": attention_scaling(),
    "linear-lsh": attention_scaling(),
    "depth-free": depth_scaling(),
    "ff-chunks": ff_chunks(),
    "table-3": table_3(),
    "flat-speed": fixed_tokens(),
    "more-hashes": hash_rounds(),
    "million-tokens": million(12 * GIB),
    "deep-64k": deep(),
    "swap-params": swapped(),
}

REFUTING = {
    "full attention in linear memory": ("quadratic-full", attention_scaling(full=1)),
    "memory-efficient in quadratic memory": ("quadratic-full", attention_scaling(lean=2)),
    "LSH in quadratic memory": ("linear-lsh", attention_scaling(lsh=2)),
    "a reversible stack that grows": ("depth-free", depth_scaling(reversible=1.0)),
    "a residual stack that doesn't": ("depth-free", depth_scaling(standard=0.0)),
    "chunks that save nothing": ("ff-chunks", ff_chunks(chunked=1.0)),
    "d_ff that costs nothing": ("ff-chunks", ff_chunks(whole=0.0)),
    "a reformer that grows with layers": ("table-3", table_3(reformer=(1, 1, 0))),
    "a transformer linear in length": ("table-3", table_3(transformer=(1, 1, 1))),
    "full attention that stays flat": ("flat-speed", fixed_tokens(full=0.0)),
    "LSH that slows down": ("flat-speed", fixed_tokens(lsh=1.0)),
    "an error that stays": ("more-hashes", hash_rounds(error=0.0)),
    "a million tokens in 17 GiB": ("million-tokens", million(17 * GIB)),
    "20 layers in 17 GiB": ("deep-64k", deep(17 * GIB)),
    "depth that costs at 64K": ("deep-64k", deep(growth=1.0)),
    "swapped parameters that grow": ("swap-params", swapped(growth=1.0)),
    "a transfer that shows": ("swap-params", swapped(slower=2.0)),
}


@pytest.mark.parametrize("claim", SUPPORTING)
def test_data_as_the_paper_has_it_supports_the_claim(claim):
    found = verdict(claim, SUPPORTING[claim])
    assert found.outcome is Outcome.SUPPORTED, found.sentence
    assert all(finding.points or finding.figure is not None for finding in found.findings)
    assert found.sentence.endswith(".")


@pytest.mark.parametrize("case", REFUTING)
def test_data_against_it_refutes_the_claim(case):
    claim, records = REFUTING[case]
    found = verdict(claim, records)
    assert found.outcome is Outcome.REFUTED, found.sentence
    assert found.sentence.startswith("Against it: ")


def test_without_records_nothing_is_judged_and_every_claim_of_the_paper_is_there():
    found = judge_claims([])
    assert {one.outcome for one in found} == {Outcome.NOT_MEASURABLE}
    assert len(found) == len(CLAIMS) == 13


def test_a_leaner_model_that_is_larger_refutes_the_order_alone():
    heavier = [
        one if one.case.variant != "reformer" or one.case.suite != "table-3" else made(
            "table-3", "reformer", 200 * 2000 * one.case.length / 256, length=one.case.length,
            model={"n_layers": one.case.model.n_layers, "d_ff": one.case.model.d_ff},
        )
        for one in table_3()
    ]  # fmt: skip
    found = verdict("table-3", heavier)
    assert [one.expectation.unit for one in found.findings if one.holds is False] == ["ratio"]


def test_swapping_cannot_be_judged_on_a_cpu():
    on_cpu = [one.model_copy(update={"environment": record().environment}) for one in swapped()]
    found = verdict("swap-params", on_cpu)
    assert found.outcome is Outcome.NOT_MEASURABLE
    assert "a device that has a memory of its own" in found.sentence


def test_predictions_for_a_gpu_say_what_swapping_leaves_on_it_beside_measurements_on_a_cpu():
    found = verdict("swap-params", [*made_on_cpu(), *map(as_predicted, swapped())])
    assert found.outcome is Outcome.NOT_MEASURABLE
    assert [one.holds for one in found.findings] == [True, None]
    assert found.findings[0].basis == "predicted"


def test_predictions_for_a_gpu_do_not_count_as_the_cpus():
    lone = record("reformer", 2**20, device="cuda", predicted=12 * GIB, suite="million")
    elsewhere = as_predicted(lone)
    assert verdict("million-tokens", [elsewhere]).outcome is Outcome.SUPPORTED
    found = verdict("million-tokens", [*made_on_cpu(), elsewhere])
    assert found.outcome is Outcome.NOT_MEASURABLE


def test_swapping_is_timed_where_both_were_timed():
    gone = [
        one.model_copy(update={"outcome": Ended.DEVICE_OOM, "timing": None})
        if one.case.length == 16_384 and one.case.variant in ("none-8", "cpu-4")
        else one
        for one in swapped()
    ]
    kept, hidden = verdict("swap-params", gone).findings
    assert kept.holds
    assert "without swapping 0.90" in kept.note
    assert hidden.figure == pytest.approx(1.1)
    assert hidden.note == "2 layers at 16,384 tokens"


@pytest.mark.parametrize("outcome", [Ended.DEVICE_OOM, Ended.HOST_OOM])
def test_what_ran_out_of_memory_is_not_said_to_fit(outcome):
    (lone,) = million(12 * GIB)
    memory = lone.memory.model_copy(update={"allocator": None, "predicted_peak_bytes": 9 * GIB})
    failed = lone.model_copy(update={"outcome": outcome, "memory": memory})
    found = verdict("million-tokens", [failed])
    assert found.outcome is Outcome.NOT_MEASURABLE
    assert "ran out of memory" in found.findings[0].note


def made_on_cpu() -> list[Record]:
    return [one.model_copy(update={"environment": environment("cpu")}) for one in swapped()]


def test_a_prediction_stands_in_where_nothing_was_measured_and_is_called_one():
    killed = record(
        "reformer", 2**20, Ended.TIMEOUT, predicted=12 * GIB, suite="seq-scaling", peak=None
    )
    found = verdict("million-tokens", [killed])
    assert found.outcome is Outcome.SUPPORTED
    assert found.findings[0].basis == "predicted"
    assert "predicted, not measured" in found.sentence


def test_a_measurement_goes_before_a_prediction():
    records = [
        *million(17 * GIB),
        record("reformer", 2**20, Ended.TIMEOUT, predicted=12 * GIB, peak=None),
    ]
    assert verdict("million-tokens", records).findings[0].basis == "measured"


def test_predictions_are_fitted_beside_measurements_and_do_not_move_them():
    alone = verdict("linear-lsh", attention_scaling()).findings[0]
    records = [
        one.model_copy(
            update={"memory": one.memory.model_copy(update={"predicted_peak_bytes": 9 * GIB})}
        )
        for one in attention_scaling()
    ]
    beside = verdict("linear-lsh", records).findings[0]
    assert (beside.figure, beside.points) == (alone.figure, alone.points)
    assert "predicted 0.00" in beside.note


def test_out_of_memory_sizes_are_said():
    records = attention_scaling()
    lost = [
        one.model_copy(update={"outcome": Ended.DEVICE_OOM, "timing": None})
        if one.case.variant == "full" and one.case.length == LENGTHS[-1]
        else one
        for one in records
    ]
    found = verdict("quadratic-full", lost)
    assert found.outcome is Outcome.SUPPORTED
    assert "1 size ran out of memory or time" in found.findings[0].note


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ([(1, 1), (2, 2), (4, 4), (8, 8)], True),
        ([(1, 1), (2, 4), (4, 16), (8, 64)], False),
        ([(1, 1), (2, 2)], None),
        ([(1, 1), (2, 3.5), (4, 3)], None),
    ],
    ids=["inside", "outside", "no interval", "too wide"],
)
def test_an_exponent_holds_fails_or_cannot_tell(points, holds):
    fit = fit_power([Point(x, y) for x, y in points], [Censored(16)])
    assert judged(power(1, "memory"), fit, "measured").holds is holds


def test_bounds_read_as_people_write_them():
    assert bounds_text(power(2, "")) == "1.75 to 2.25"
    assert bounds_text(Expectation("", 0, 16 * GIB, "bytes")) == "at most 16 GiB"
    assert bounds_text(Expectation("", 0, 1.05, "ratio")) == "at most 1.05"


def test_the_order_compares_equal_sizes_when_a_heavy_model_ran_out():
    records = [
        one.model_copy(update={"outcome": Ended.DEVICE_OOM, "timing": None})
        if one.case.variant == "lsh-transformer" and one.case.length == 2048
        else one
        for one in table_3()
    ]
    order = verdict("table-3", records).findings[-1]
    assert order.holds is True
