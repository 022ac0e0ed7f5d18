"""Table 3 of the paper: its five models along length, depth and d_ff, and their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reformer_bench.analysis.judging import Expectation, Finding, joined, two_decimals, within
from reformer_bench.analysis.powers import memory_growth
from reformer_bench.analysis.quantities import (
    FLOPS,
    TIME,
    Basis,
    activation_bytes,
    growth,
    is_measured,
)
from reformer_bench.analysis.selection import Records, depth, length, where, width
from reformer_bench.spec.record import Record

if TYPE_CHECKING:
    from reformer_bench.analysis.judging import Claim

TABLE_3 = {
    "transformer": ("full", "standard", False),
    "reversible": ("full", "reversible", False),
    "chunked reversible": ("full", "reversible", True),
    "LSH": ("lsh", "standard", False),
    "reformer": ("lsh", "reversible", True),
}
"""The attention, the residual and the chunking of the five models, by the first words of an
expectation."""

_LEANER = (
    ("transformer", "reversible"),
    ("reversible", "chunked reversible"),
    ("transformer", "LSH"),
    ("LSH", "reformer"),
)


def table_3(claim: Claim, records: Records) -> tuple[Finding, ...]:
    """Judge the growth of the five models with length, depth and d_ff, and their order."""
    plain, wide = ([r for r in records if r.case.suite == suite] for suite in claim.suites)
    slices = {"tokens": (length, _along_length), "layers": (depth, _along_depth)}
    slices["d_ff"] = (width, _along_width)
    findings = []
    for expectation in claim.expectations[:-1]:
        name, _, _ = expectation.text.partition(", memory in ")
        x, chosen = slices[expectation.axis]
        found = wide if expectation.axis == "d_ff" else plain
        records_along = chosen(_model_of_table(found, name))
        finding = memory_growth(expectation, records_along, x)
        findings.append(replace(finding, note=joined(finding.note, *_beside(records_along, x))))
    return (*findings, _order(claim.expectations[-1], plain))


def _beside(records: Records, x: Callable[[Record], float]) -> list[str]:
    """Return exponents of time and FLOPs, which need other sizes than memory to show
    their growth.
    """
    fits = (("time", growth(records, x, TIME)), ("FLOPs", growth(records, x, FLOPS)))
    return [f"{name} {two_decimals(fit.exponent)}" for name, fit in fits if fit is not None]


def _model_of_table(records: Records, name: str) -> list[Record]:
    attention, residual, chunked = TABLE_3[name]
    return where(records, attention=attention, residual=residual, chunked=chunked)


def _along_length(records: Records) -> list[Record]:
    """Return the records of the shallowest and narrowest model."""
    least = (min(map(depth, records), default=0), min(map(width, records), default=0))
    return where(records, keep=lambda r: (depth(r), width(r)) == least)


def _along_depth(records: Records) -> list[Record]:
    """Return the narrowest models, at the longest length at which three or more finished."""
    narrow = where(records, keep=lambda r: width(r) == min(map(width, records)))
    ended = Counter(length(r) for r in narrow if activation_bytes(r) is not None)
    longest = max((n for n, count in ended.items() if count >= 3), default=max(ended, default=0))
    return where(narrow, keep=lambda r: length(r) == longest)


def _along_width(records: Records) -> list[Record]:
    """Return the shallowest models at the shortest length, where d_ff outweighs the scores."""
    at = (min(map(length, records), default=0), min(map(depth, records), default=0))
    return where(records, keep=lambda r: (length(r), depth(r)) == at)


def _order(expectation: Expectation, records: Records) -> Finding:
    """Find the largest ratio of a leaner model to the one before it. Each pair is compared at the
    longest length, and then at the most layers, that both have.
    """
    basis: Basis = "measured" if any(map(is_measured, records)) else "predicted"
    known = [record for record in records if basis == "predicted" or is_measured(record)]
    ratios = {}
    for before, after in _LEANER:
        heavy, light = (_by_size(_model_of_table(known, name)) for name in (before, after))
        shared = heavy.keys() & light.keys()
        if not shared:
            return within(expectation, None, note=f"{before} and {after} share no size")
        ratios[f"{after} to {before}"] = light[max(shared)] / heavy[max(shared)]
    worst = max(ratios, key=lambda name: ratios[name])
    return within(expectation, ratios[worst], basis, note=f"the largest is {worst}")


def _by_size(records: Records) -> dict[tuple[float, float], float]:
    """Return the activation memory by length and layers."""
    found = {(length(r), depth(r)): activation_bytes(r) for r in records}
    return {size: value for size, value in found.items() if value is not None}
