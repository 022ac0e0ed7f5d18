"""Evidence: for each claim of the paper, a function from records to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reformer_bench.analysis.judging import Expectation, Finding, judged, two_decimals, within
from reformer_bench.analysis.peaks import smallest_peak
from reformer_bench.analysis.powers import memory_growth, time_growth
from reformer_bench.analysis.quantities import TIME, Basis, Quantity, growth, is_measured
from reformer_bench.analysis.selection import (
    Records,
    at_longest,
    depth,
    length,
    of_suites,
    rounds,
    where,
    width,
)
from reformer_bench.spec.record import Outcome, Record

if TYPE_CHECKING:
    from reformer_bench.analysis.judging import Claim

Findings = tuple[Finding, ...]


def quadratic_full(claim: Claim, records: Records) -> Findings:
    """Look whether full attention takes memory and time of L², and memory-efficient attention
    memory of L.
    """
    found = of_suites(claim, records)
    full, lean = where(found, attention="full"), where(found, attention="memory_efficient")
    memory, time, lean_memory, lean_time = claim.expectations
    return (
        memory_growth(memory, full, length),
        time_growth(time, full, length),
        memory_growth(lean_memory, lean, length),
        time_growth(lean_time, lean, length),
    )


def linear_lsh(claim: Claim, records: Records) -> Findings:
    """Look whether LSH attention takes memory and time of about L."""
    lsh = where(of_suites(claim, records), attention="lsh")
    memory, time = claim.expectations
    return memory_growth(memory, lsh, length), time_growth(time, lsh, length)


def depth_free(claim: Claim, records: Records) -> Findings:
    """Look whether activation memory stays the same with depth in a reversible stack, and grows in
    a residual one.
    """
    found = at_longest(where(of_suites(claim, records), keep=_is_float32))
    reversible, standard = claim.expectations
    return (
        memory_growth(reversible, where(found, residual="reversible"), depth),
        memory_growth(standard, where(found, residual="standard"), depth),
    )


def _is_float32(record: Record) -> bool:
    return record.case.model.dtype == "float32"


def ff_chunks(claim: Claim, records: Records) -> Findings:
    """Look whether activation memory stays the same with d_ff in chunks, and grows without them."""
    found = at_longest(of_suites(claim, records))
    chunked, whole = claim.expectations
    return (
        memory_growth(chunked, where(found, chunked=True), width),
        memory_growth(whole, where(found, chunked=False), width),
    )


def flat_speed(claim: Claim, records: Records) -> Findings:
    """Look whether a step with a fixed number of tokens slows down with length, as it does in full
    attention.
    """
    found = of_suites(claim, records)
    rising, *flat = claim.expectations
    full = where(found, keep=lambda r: set(r.case.model.attention) != {"lsh"})
    findings = [time_growth(rising, full, length)]
    for expectation in flat:
        n = int(expectation.text.split()[2])
        lsh = where(found, attention="lsh", keep=lambda r, n=n: rounds(r) == n)  # type: ignore[misc]
        findings.append(time_growth(expectation, lsh, length))
    return tuple(findings)


def more_hashes(claim: Claim, records: Records) -> Findings:
    """Look whether more hash rounds lower the error for close neighbours, and what time
    they take.
    """
    lsh = at_longest(where(of_suites(claim, records), attention="lsh"))
    error, time = claim.expectations
    beside = []
    for inputs, which in (("planted", "missed"), ("random", "missed"), ("random", "error")):
        fit = growth(lsh, rounds, _quality(inputs, which))
        if fit is not None:
            words = "attention missed" if which == "missed" else "error"
            beside.append(f"{words} on {inputs} vectors {two_decimals(fit.exponent)}")
    measured = growth(lsh, rounds, _quality("planted", "error"))
    return (
        judged(error, measured, "measured", ", ".join(beside)),
        time_growth(time, lsh, rounds),
    )


def _quality(inputs: str, which: str) -> Quantity:
    """Return the relative error of the output, or the share of attention that no round sees."""

    def of(record: Record) -> float | None:
        for quality in record.quality:
            if quality.inputs == inputs:
                missed = 1 - quality.mass_caught
                return quality.relative_error if which == "error" else missed
        return None

    return Quantity(f"{which} on {inputs} vectors", "measured", of)


def million_tokens(claim: Claim, records: Records) -> Findings:
    """Look how much a training step on a million tokens takes."""
    (fits,) = claim.expectations
    found = where(
        records,
        attention="lsh",
        residual="reversible",
        keep=lambda r: (
            r.case.length >= 10**6
            and r.case.workload == "train_step"
            and r.case.implementation == "native"
        ),
    )
    return (smallest_peak(fits, found),)


def deep_64k(claim: Claim, records: Records) -> Findings:
    """Look how much 20 layers of the paper's size take at 64K tokens, and whether depth costs
    memory there.
    """
    fits, deep = claim.expectations
    reformers = where(records, attention="lsh", residual="reversible")
    size = where(
        reformers,
        keep=lambda r: (
            r.case.length >= 65_536
            and r.case.workload == "train_step"
            and r.case.implementation == "native"
            and depth(r) >= 20
            and r.case.model.d_model >= 1024
            and width(r) >= 4096
            and r.case.model.n_heads >= 8
        ),
    )
    own = at_longest(where(of_suites(claim, reformers), keep=lambda r: length(r) >= 65_536))
    small = min((r.case.model.d_model for r in own), default=0)
    scaled = where(own, keep=lambda r: r.case.model.d_model == small)
    return smallest_peak(fits, size), memory_growth(deep, scaled, depth)


def swap_params(claim: Claim, records: Records) -> Findings:
    """Look how a GPU's memory grows with depth when parameters are swapped out, and what the
    transfer costs.
    """
    kept, hidden = claim.expectations
    found = where(of_suites(claim, records), keep=lambda r: r.environment.device_kind == "cuda")
    return _left_on_device(kept, found), _transfer(hidden, found)


def _left_on_device(expectation: Expectation, records: Records) -> Finding:
    """Fit the whole peak in layers, in which copies of parameters that stayed would show. The
    shortest length is taken, where parameters weigh most.
    """
    for quantity in (_peak("measured"), _peak("predicted")):
        known = [record for record in records if quantity.of(record) is not None]
        swapped, resident = (_offloading(known, where_to) for where_to in ("cpu", "none"))
        if not swapped:
            continue
        shortest = min(map(length, swapped))
        fit = growth(_at(swapped, shortest), depth, quantity)
        without = growth(_at(resident, shortest), depth, quantity)
        beside = "" if without is None else f"without swapping {two_decimals(without.exponent)}"
        return judged(expectation, fit, quantity.basis, beside)
    return judged(expectation, None, "measured")


def _at(records: Records, n_tokens: float) -> list[Record]:
    return where(records, keep=lambda r: length(r) == n_tokens)


def _offloading(records: Records, where_to: str) -> list[Record]:
    return where(records, keep=lambda r: r.case.model.parameter_offload == where_to)


def _peak(basis: Basis) -> Quantity:
    def of(record: Record) -> float | None:
        peak = record.memory.peak_bytes
        known = record.outcome is Outcome.OK and peak is not None
        return peak if known and is_measured(record) == (basis == "measured") else None

    return Quantity("memory of the device", basis, of)


def _transfer(expectation: Expectation, records: Records) -> Finding:
    """Return the time with swapping as a multiple of the time without, for the deepest model at the
    longest length that has both.
    """
    times = {
        (length(record), depth(record), str(record.case.model.parameter_offload)): value
        for record in records
        if (value := TIME.of(record)) is not None
    }
    shared = {(n, layers) for n, layers, _ in times}
    shared = {at for at in shared if (*at, "none") in times and (*at, "cpu") in times}
    if not shared:
        return within(expectation, None, note="no GPU was timed both with and without swapping")
    at = max(shared)
    note = f"{at[1]} layers at {at[0]:,} tokens"
    return within(expectation, times[*at, "cpu"] / times[*at, "none"], note=note)


def accuracy(claim: Claim, records: Records) -> Findings:
    """Return no findings: accuracy needs training runs, which no suite makes."""
    return ()
