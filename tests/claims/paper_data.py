"""Synthetic records that support, or refute, each claim of the paper."""

from collections.abc import Callable
from typing import Any

from reformer_bench.schema.record import Quality, Record
from reformer_bench.schema.units import GIB, MIB
from tests.builders import PARAMETERS_BYTES, record

FIXED = 4 * PARAMETERS_BYTES  # With gradients and the optimizer's state.
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
