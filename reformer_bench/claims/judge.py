"""Judging: from what a claim expects and what was found to a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from reformer_bench.claims.evidence import (
    Evidence,
    Gather,
    Records,
    Select,
    chosen,
    joined,
    two_decimals,
)
from reformer_bench.schema.units import GIB, format_bytes

TOLERANCE = 0.25
"""An exponent this near to a whole power counts as that power, for every claim alike. That leaves
room for the logarithm in L log L, which adds about 0.1."""
_RESOLUTION = 0.5
"""An interval that reaches further than this from its exponent can't tell one whole power from the
next."""


@dataclass(frozen=True)
class Bounds:
    """What a claim says of a figure: where it has to lie."""

    low: float
    high: float
    unit: Literal["exponent", "ratio", "bytes"] = "exponent"

    def __str__(self) -> str:
        if self.unit == "bytes":
            return f"at most {self.high / GIB:g} GiB"
        if self.unit == "ratio" or math.isinf(self.low):
            return f"at most {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


CONSTANT = Bounds(-math.inf, TOLERANCE)
"""The figure doesn't grow; it may fall."""
FALLS = Bounds(-math.inf, -TOLERANCE)
"""The figure falls by more than what still counts as constant."""


def power(k: int) -> Bounds:
    """Return the bounds of a figure that grows with a power of its axis; with none, if k is 0."""
    return Bounds(k - TOLERANCE, k + TOLERANCE) if k else CONSTANT


@dataclass(frozen=True)
class Expectation:
    """A figure, the bounds that a claim sets to it, and how records give it."""

    text: str
    bounds: Bounds
    gather: Gather
    subject: str = ""
    """What it is about, by the name that this has in the plots of runs, for its colour there."""
    label: str = ""
    """The text in a panel, where the title says the rest of it."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and what would speak for and against it."""

    id: str
    statement: str
    source: str
    against: str
    """What would refute the claim, in words."""
    quantity: str
    """What its figures are figures of."""
    suites: tuple[str, ...] = ()
    """The suites that measure the claim."""
    of_any_suite: bool = False
    """Whether records of other suites count as well."""
    narrowed: tuple[Select, ...] = ()
    """How the records that all its figures are taken from are chosen, step by step."""
    expectations: tuple[Expectation, ...] = ()
    title: str = ""
    """What its panel is called, in plain words; empty where no growth is fitted."""
    why_not: str = ""
    """Why nothing can be said, where that has another reason than missing figures."""
    elsewhere: bool = False
    """Whether predictions for a kind of device that was not measured count as evidence too."""


@dataclass(frozen=True)
class Finding:
    """A figure that was found, beside what was expected of it."""

    expectation: Expectation
    evidence: Evidence
    holds: bool | None
    """Whether the figure is as expected; None where the records can't tell."""
    note: str
    """Why the records can't tell, what was left out, and what predictions and FLOPs say."""


class Verdict(StrEnum):
    """What the records say of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    NOT_MEASURABLE = "not measurable here"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim, with the findings that led to it."""

    claim: Claim
    verdict: Verdict
    findings: tuple[Finding, ...]
    sentence: str


def finding(expectation: Expectation, evidence: Evidence) -> Finding:
    """Judge a figure by its bounds.

    A fitted exponent refutes the claim where its whole interval lies outside. It agrees where the
    exponent lies inside and the interval is narrow enough to tell one whole power from the next.
    Otherwise the records can't tell. A single figure has no interval, and lies inside or outside.
    """
    holds, why = _decide(expectation.bounds, evidence)
    return Finding(expectation, evidence, holds, joined(why, evidence.note))


def _decide(bounds: Bounds, found: Evidence) -> tuple[bool | None, str]:
    low, high = bounds.low, bounds.high
    if found.figure is None:
        return None, ""
    if bounds.unit != "exponent":
        return low <= found.figure <= high, ""
    if found.lower is None or found.upper is None:
        return None, "an exponent through two sizes has no interval"
    if found.upper < low or found.lower > high:
        return False, ""
    if not low <= found.figure <= high:
        return None, "outside the bounds, but its interval reaches into them"
    reach = max(
        found.upper - found.figure if math.isfinite(high) else 0.0,
        found.figure - found.lower if math.isfinite(low) else 0.0,
    )
    if reach > _RESOLUTION:
        return None, "the interval is too wide to tell one power from the next"
    return True, ""


def judge(claim: Claim, records: Records, *, was_run: bool = True) -> Judgement:
    """Judge a claim: one finding that disagrees refutes it, and all have to agree to support it.

    ``was_run`` says whether there is any record of the claim's suites.
    """
    # The paper says nothing of other people's models.
    records = [record for record in records if record.case.target is None]
    if not claim.of_any_suite:
        records = [record for record in records if record.case.suite in claim.suites]
    counting = chosen(records, *claim.narrowed)
    findings = tuple(finding(one, one.gather(counting)) for one in claim.expectations)
    against = [found for found in findings if found.holds is False]
    unknown = [found for found in findings if found.holds is None]
    if against:
        verdict = Verdict.REFUTED
        sentence = f"Against it: {_in_words(against)}."
    elif len(unknown) == len(findings):
        verdict = Verdict.NOT_MEASURABLE
        words = claim.why_not or f"no run has a record of the suite {' or '.join(claim.suites)}"
        if was_run and not claim.why_not:
            words = _in_words(findings)
        sentence = f"{_capital(words)}."
    elif unknown:
        verdict = Verdict.NOT_MEASURABLE
        held = [found for found in findings if found.holds]
        sentence = (
            f"Undecided: {_in_words(unknown)}. In agreement with the claim, "
            f"{len(held)} of {len(findings)} findings: {_in_words(held)}."
        )
    else:
        verdict = Verdict.SUPPORTED
        sentence = f"{_capital(_in_words(findings))}."
    if verdict is not Verdict.NOT_MEASURABLE and any(
        found.evidence.basis == "predicted" for found in findings
    ):
        sentence += " Some of these figures are predicted, not measured."
    return Judgement(claim, verdict, findings, sentence)


def _in_words(findings: Sequence[Finding]) -> str:
    """Write findings as ``time of full attention: 2.01 [1.97, 2.05] (FLOPs 2.00); …``."""
    words = []
    for found in findings:
        shown = "no figure" if found.evidence.figure is None else figure_text(found)
        note = f" ({found.note})" if found.note else ""
        words.append(f"{found.expectation.text}: {shown}{note}")
    return "; ".join(words)


def figure_text(found: Finding) -> str:
    """Write the figure in its unit, with its interval; a dash where there is none."""
    evidence = found.evidence
    if evidence.figure is None:
        return "–"
    in_bytes = found.expectation.bounds.unit == "bytes"
    text = format_bytes(evidence.figure) if in_bytes else two_decimals(evidence.figure)
    if evidence.lower is not None and evidence.upper is not None:
        text += f" [{two_decimals(evidence.lower)}, {two_decimals(evidence.upper)}]"
    return text if evidence.basis == "measured" else f"{text} {evidence.basis}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
