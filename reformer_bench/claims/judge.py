"""Judging: from what a claim expects and what was found to a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reformer_bench.claims.fit import Fit, Point
from reformer_bench.claims.quantities import Basis
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import format_bytes

TOLERANCE = 0.25
"""An exponent this near to a whole power counts as that power, for every claim alike. That leaves
room for the logarithm in L log L, which adds about 0.1."""
_RESOLUTION = 0.5
"""An interval that reaches further than this from its exponent can't tell one whole power from the
next."""


class Outcome(StrEnum):
    """What the records say of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    NOT_MEASURABLE = "not measurable here"


@dataclass(frozen=True)
class Expectation:
    """A figure, and the bounds that a claim sets to it."""

    text: str
    low: float
    high: float
    unit: str = "exponent"
    axis: str = "tokens"
    """What the figure grows with."""


def constant(text: str, axis: str = "tokens") -> Expectation:
    """Expect a figure not to grow; it may fall."""
    return Expectation(text, -math.inf, TOLERANCE, axis=axis)


def power(k: int, text: str, axis: str = "tokens") -> Expectation:
    """Expect a figure to grow with a power of its axis."""
    return Expectation(text, k - TOLERANCE, k + TOLERANCE, axis=axis)


def falls(text: str, axis: str = "tokens") -> Expectation:
    """Expect a figure to fall, by more than what still counts as constant."""
    return Expectation(text, -math.inf, -TOLERANCE, axis=axis)


@dataclass(frozen=True)
class Finding:
    """A figure that was found, beside what was expected of it."""

    expectation: Expectation
    holds: bool | None
    """Whether the figure is as expected; None where the records can't tell."""
    figure: float | None = None
    lower: float | None = None
    upper: float | None = None
    points: tuple[Point, ...] = ()
    basis: Basis = "measured"
    unsettled: tuple[Point, ...] = ()
    """The smallest sizes, which the fit left out because the exponent still changes there."""
    note: str = ""
    """Why the records can't tell, what was left out, and what predictions and FLOPs say."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and what would speak for and against it."""

    id: str
    statement: str
    source: str
    suites: tuple[str, ...]
    """The suites that measure the claim."""
    quantity: str
    expectations: tuple[Expectation, ...]
    against: str
    """What would refute the claim, in words."""
    evidence: Callable[[Claim, Sequence[Record]], tuple[Finding, ...]]
    """Makes a finding for each expectation, from records."""
    why_not: str = ""
    """Why nothing can be said, where that has another reason than missing figures."""
    elsewhere: bool = False
    """Whether predictions for a kind of device that was not measured count as evidence too."""


@dataclass(frozen=True)
class Verdict:
    """What the records say of a claim, with the findings that say so."""

    claim: Claim
    outcome: Outcome
    findings: tuple[Finding, ...]
    sentence: str


def judged(expectation: Expectation, fit: Fit | None, basis: Basis, beside: str = "") -> Finding:
    """Judge a fitted exponent by its bounds.

    It refutes the claim where the whole interval lies outside. It agrees where the exponent lies
    inside and the interval is narrow enough to tell one whole power from the next. Otherwise the
    records can't tell.
    """
    if fit is None:
        return Finding(expectation, None, note=joined("fewer than two sizes have a figure", beside))
    holds, why = _decide(expectation, fit)
    note = joined(why, *_said(fit), beside)
    return Finding(
        expectation,
        holds,
        fit.exponent,
        fit.lower,
        fit.upper,
        fit.points,
        basis,
        fit.unsettled,
        note,
    )


def _decide(expectation: Expectation, fit: Fit) -> tuple[bool | None, str]:
    low, high = expectation.low, expectation.high
    if fit.lower is None or fit.upper is None:
        return None, "an exponent through two sizes has no interval"
    if fit.upper < low or fit.lower > high:
        return False, ""
    if not low <= fit.exponent <= high:
        return None, "outside the bounds, but its interval reaches into them"
    reach = max(
        fit.upper - fit.exponent if math.isfinite(high) else 0.0,
        fit.exponent - fit.lower if math.isfinite(low) else 0.0,
    )
    if reach > _RESOLUTION:
        return None, "the interval is too wide to tell one power from the next"
    return True, ""


def _said(fit: Fit) -> list[str]:
    """Say which sizes were left out of a fit, and how sizes out of memory or time were taken."""
    words = []
    if fit.unsettled:
        n = len(fit.unsettled)
        sizes = "size" if n == 1 else f"{n} sizes"
        words.append(f"without the smallest {sizes}, where the exponent still changes")
    if fit.censored:
        sizes = "size" if len(fit.censored) == 1 else "sizes"
        pulled = f", {fit.n_pulling} of them made the fit steeper" if fit.n_pulling else ""
        words.append(f"{len(fit.censored)} {sizes} ran out of memory or time{pulled}")
    return words


def within(
    expectation: Expectation,
    figure: float | None,
    basis: Basis = "measured",
    points: tuple[Point, ...] = (),
    note: str = "",
) -> Finding:
    """Judge a single figure, which has no interval, by its bounds."""
    holds = None if figure is None else expectation.low <= figure <= expectation.high
    return Finding(expectation, holds, figure, points=points, basis=basis, note=note)


def verdict(claim: Claim, findings: tuple[Finding, ...], *, was_run: bool = True) -> Verdict:
    """Put findings together: one that disagrees refutes the claim, and all have to agree to support
    it.

    ``was_run`` says whether there is any record of the claim's suites.
    """
    against = [finding for finding in findings if finding.holds is False]
    unknown = [finding for finding in findings if finding.holds is None]
    if against:
        outcome = Outcome.REFUTED
        sentence = f"Against it: {'; '.join(map(in_words, against))}."
    elif not findings or len(unknown) == len(findings):
        outcome = Outcome.NOT_MEASURABLE
        words = claim.why_not or f"no run has a record of the suite {' or '.join(claim.suites)}"
        if was_run and not claim.why_not:
            words = "; ".join(map(in_words, findings))
        sentence = f"{_capital(words)}."
    elif unknown:
        outcome = Outcome.NOT_MEASURABLE
        held = [finding for finding in findings if finding.holds]
        sentence = (
            f"Undecided: {'; '.join(map(in_words, unknown))}. In agreement with the claim, "
            f"{len(held)} of {len(findings)} findings: {'; '.join(map(in_words, held))}."
        )
    else:
        outcome = Outcome.SUPPORTED
        sentence = f"{_capital('; '.join(map(in_words, findings)))}."
    if outcome is not Outcome.NOT_MEASURABLE and any(f.basis == "predicted" for f in findings):
        sentence += " Some of these figures are predicted, not measured."
    return Verdict(claim, outcome, findings, sentence)


def in_words(finding: Finding) -> str:
    """Write a finding as ``time of full attention in length: 2.01 [1.97, 2.05] (predicted
    2.00)``.
    """
    shown = "no figure" if finding.figure is None else figure_text(finding)
    note = f" ({finding.note})" if finding.note else ""
    return f"{finding.expectation.text}: {shown}{note}"


def figure_text(finding: Finding) -> str:
    """Write the figure in its unit, with its interval; a dash where there is none."""
    if finding.figure is None:
        return "–"
    if finding.expectation.unit == "bytes":
        text = format_bytes(finding.figure)
    else:
        text = two_decimals(finding.figure)
    if finding.lower is not None and finding.upper is not None:
        text += f" [{two_decimals(finding.lower)}, {two_decimals(finding.upper)}]"
    return text if finding.basis == "measured" else f"{text} {finding.basis}"


def two_decimals(value: float) -> str:
    """Write a number with two decimals, without a sign on zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def joined(*words: str) -> str:
    """Join notes into one, leaving out empty ones."""
    return "; ".join(word for word in words if word)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
