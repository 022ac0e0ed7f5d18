"""Claims: the paper's sentences as data, and the verdicts that records give on them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from reformer_bench.claims import evidence
from reformer_bench.claims import evidence as table_three
from reformer_bench.claims.judge import (
    Claim,
    Expectation,
    Outcome,
    Verdict,
    constant,
    falls,
    power,
    verdict,
)
from reformer_bench.claims.quantities import is_measured, latest
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import GIB

# Powers come from the complexities of Tables 1 and 3: which term the suite's sizes let dominate.
_TABLE_3_POWERS = {
    "transformer": (2, 1, 1),
    "reversible": (2, 0, 1),
    "chunked reversible": (2, 0, 0),
    "LSH": (1, 1, 1),
    "reformer": (1, 0, 0),
}
_TABLE_3_AXES = (("length", "tokens"), ("layers", "layers"), ("d_ff", "d_ff"))
"""Each axis of Table 3: its name in an expectation's words, and its name in code."""


def _grows(k: int, text: str, axis: str) -> Expectation:
    if k == 0:
        return constant(text, axis)
    return power(k, text, axis)


def _table_3() -> tuple[Expectation, ...]:
    powers = [
        _grows(k, f"{name}, memory in {words}", axis)
        for name, row in _TABLE_3_POWERS.items()
        for (words, axis), k in zip(_TABLE_3_AXES, row, strict=True)
    ]
    order = Expectation(
        "largest memory ratio of a model to the one it improves on", 0.0, 1.05, "ratio"
    )
    return (*powers, order)


_ACCURACY = {
    "quantity": "accuracy after training",
    "suites": (),
    "expectations": (),
    "evidence": evidence.accuracy,
    "why_not": "takes a model trained to the end, and no suite trains one",
}

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="quadratic-full",
        statement="Full attention takes memory and time that grow as L²; memory-efficient "
        "attention takes memory that grows as L.",
        source="section 2, Table 1",
        suites=("attention-scaling",),
        quantity="activation memory and time of one attention sublayer, in length",
        expectations=(
            power(2, "memory of full attention"),
            power(2, "time of full attention"),
            power(1, "memory of memory-efficient attention"),
            power(2, "time of memory-efficient attention"),
        ),
        against="an exponent whose interval lies outside its bounds",
        evidence=evidence.quadratic_full,
    ),
    Claim(
        id="linear-lsh",
        statement="LSH attention takes memory and time that grow about as L at a fixed chunk.",
        source="section 2, Table 1",
        suites=("attention-scaling",),
        quantity="activation memory and time of one attention sublayer, in length",
        expectations=(power(1, "memory of LSH attention"), power(1, "time of LSH attention")),
        against="an exponent whose interval lies outside its bounds",
        evidence=evidence.linear_lsh,
    ),
    Claim(
        id="depth-free",
        statement="A reversible stack's activation memory does not grow with its layers; a "
        "residual stack's grows with them.",
        source="section 3, Table 3",
        suites=("depth-scaling",),
        quantity="activation memory of a training step, in layers",
        expectations=(
            constant("memory of a reversible stack", "layers"),
            power(1, "memory of a residual stack", "layers"),
        ),
        against="a reversible stack that grows, or a residual one that does not",
        evidence=evidence.depth_free,
    ),
    Claim(
        id="ff-chunks",
        statement="Feed-forward chunks take d_ff out of the peak.",
        source="section 3, Table 3",
        suites=("ff-chunks",),
        quantity="activation memory of a training step, in d_ff",
        expectations=(
            constant("memory with chunks", "d_ff"),
            power(1, "memory without chunks", "d_ff"),
        ),
        against="memory with chunks that grows with d_ff, or memory without chunks that does not",
        evidence=evidence.ff_chunks,
    ),
    Claim(
        id="table-3",
        statement="The five models are ordered, and their memory scales in l, n_l and d_ff, as "
        "Table 3 says.",
        source="Table 3",
        suites=("table-3", "table-3-width"),
        quantity="activation memory of a training step, in length, layers and d_ff",
        expectations=_table_3(),
        against="any of the fifteen exponents, or the order",
        evidence=table_three.table_3,
    ),
    Claim(
        id="flat-speed",
        statement="At a fixed number of tokens full attention slows down with length and LSH "
        "attention does not.",
        source="Figure 5, right",
        suites=("fixed-tokens",),
        quantity="time of a training step, in length, tokens of a step fixed",
        expectations=(
            power(1, "time with full attention"),
            *(constant(f"time with {n} hash round{'s'[: n > 1]}") for n in (1, 2, 4, 8)),
        ),
        against="full attention that stays flat, or LSH that does not",
        evidence=evidence.flat_speed,
    ),
    Claim(
        id="more-hashes",
        statement="With more hash rounds LSH attention approaches full attention, at a cost that "
        "grows with the rounds.",
        source="Figure 4, section 4",
        suites=("hash-rounds",),
        quantity="error of the output where each query has a few close neighbours, and time, in "
        "rounds",
        expectations=(
            falls("error of the output", "hash rounds"),
            power(1, "time of LSH attention", "hash rounds"),
        ),
        against="an error that does not fall, or a time that is not linear",
        evidence=evidence.more_hashes,
    ),
    Claim(
        id="million-tokens",
        statement="A million tokens fit one accelerator with 16 GB.",
        source="the authors' blog post, January 2020",
        suites=("million", "seq-scaling"),
        quantity="peak of a training step on 1,000,000 tokens or more",
        expectations=(Expectation("peak of a training step", 0, 16 * GIB, "bytes"),),
        against="a peak above 16 GiB",
        evidence=evidence.million_tokens,
        why_not="no reformer was measured or predicted at a million tokens",
    ),
    Claim(
        id="deep-64k",
        statement="Twenty layers train at 64K tokens on one accelerator (d_model 1024, d_ff 4096, "
        "8 heads).",
        source="section 5, Figure 5 left",
        suites=("deep-64k",),
        quantity="peak of a training step at that size, and activation memory in layers at 64K",
        expectations=(
            Expectation("peak of a training step", 0, 16 * GIB, "bytes"),
            constant("memory in layers at 64K tokens", "layers"),
        ),
        against="a peak above 16 GiB, or memory that grows with layers",
        evidence=evidence.deep_64k,
    ),
    Claim(
        id="swap-params",
        statement="With parameters swapped, device memory for them does not grow with depth, and "
        "long sequences hide the transfer.",
        source="section 3",
        suites=("param-offload",),
        quantity="memory of a GPU with swapping, in layers; time with swapping as a multiple of "
        "time without",
        expectations=(
            constant("memory of the device with swapping", "layers"),
            Expectation("time with swapping as a multiple of time without", 0.0, 1.25, "ratio"),
        ),
        against="memory of the GPU that grows with layers, or a step a quarter slower",
        evidence=evidence.swap_params,
        elsewhere=True,
        why_not="parameters can only be swapped out of a device that has a memory of its own, and "
        "no run has a record of the suite param-offload on a GPU",
    ),
    Claim(
        id="shared-qk",
        statement="Sharing queries and keys costs no accuracy.",
        source="Figure 3, left",
        against="a shared-QK model that learns worse",
        **_ACCURACY,  # type: ignore[arg-type]
    ),
    Claim(
        id="reversible-parity",
        statement="A reversible model learns as its residual twin does.",
        source="Figure 3, right",
        against="a reversible model that learns worse",
        **_ACCURACY,  # type: ignore[arg-type]
    ),
    Claim(
        id="duplication",
        statement="LSH models solve the duplication task as Table 2 says.",
        source="Table 2",
        against="accuracies below the table's",
        **_ACCURACY,  # type: ignore[arg-type]
    ),
)


def judge_claims(records: Iterable[Record]) -> list[Verdict]:
    """Judge every claim, in the order of the paper.

    Where something was measured, predictions for another kind of device count only for claims that
    the measured device can say nothing about.
    """
    known = latest(records)
    measured = {record.environment.device_kind for record in known if is_measured(record)}
    here = [r for r in known if not measured or r.environment.device_kind in measured]
    return [
        verdict(
            claim,
            claim.evidence(claim, known if claim.elsewhere else here),
            was_run=any(record.case.suite in claim.suites for record in here),
        )
        for claim in CLAIMS
    ]


def is_judged(found: Verdict) -> bool:
    """Whether the records said anything about the claim."""
    return found.outcome is not Outcome.NOT_MEASURABLE


def bounds_text(expectation: Expectation) -> str:
    """Write the bounds as ``1.75 to 2.25`` or ``at most 0.25``."""
    low, high = expectation.low, expectation.high
    if expectation.unit == "bytes":
        return f"at most {high / GIB:g} GiB"
    if math.isinf(low) or (expectation.unit == "ratio" and low == 0):
        return f"at most {high:g}"
    return f"{low:g} to {high:g}"
