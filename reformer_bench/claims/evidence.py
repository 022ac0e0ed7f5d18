"""Selection: which records a claim looks at, and the axes that it fits along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reformer_bench.claims.fit import Point
from reformer_bench.claims.judge import Expectation, Finding, joined, judged, two_decimals, within
from reformer_bench.claims.quantities import (
    FLOPS,
    MEMORY,
    TIME,
    Basis,
    Quantity,
    activation_bytes,
    growth,
    is_measured,
    predicted_memory,
)
from reformer_bench.schema.record import Outcome, Record

if TYPE_CHECKING:
    from reformer_bench.claims.judge import Claim


Records = Sequence[Record]


def length(record: Record) -> float:
    """Return the number of tokens of a sequence."""
    return record.case.length


def depth(record: Record) -> float:
    """Return the number of layers."""
    return record.case.model.n_layers


def width(record: Record) -> float:
    """Return the width of the feed-forward layer, d_ff."""
    return record.case.model.d_ff


def rounds(record: Record) -> float:
    """Return the number of hash rounds."""
    return record.case.model.n_hashes


def of_suites(claim: Claim, records: Records) -> list[Record]:
    """Return the records of the suites that measure a claim."""
    return [record for record in records if record.case.suite in claim.suites]


def where(
    records: Records,
    *,
    attention: str | None = None,
    residual: str | None = None,
    chunked: bool | None = None,
    keep: Callable[[Record], bool] = lambda record: True,
) -> list[Record]:
    """Return the records whose model has this attention, residual and chunking, whatever its
    variant is called.
    """
    return [
        record
        for record in records
        if (attention is None or set(record.case.model.attention) == {attention})
        and (residual is None or record.case.model.residual == residual)
        and (chunked is None or (record.case.model.ff_chunks > 1) == chunked)
        and keep(record)
    ]


def at_longest(records: Records) -> list[Record]:
    """Return the records of the longest length at which any case finished, so that no fit mixes
    lengths.
    """
    ended = [length(record) for record in records if record.outcome is Outcome.OK]
    return where(records, keep=lambda r: length(r) == max(ended, default=0))


def memory_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Judge the growth of measured activation memory; of predicted memory where none was
    measured.
    """
    measured = growth(records, x, MEMORY)
    predicted = growth(records, x, predicted_memory(records))
    if measured is None and predicted is not None:
        return judged(expectation, predicted, "predicted")
    beside = "" if predicted is None else f"predicted {two_decimals(predicted.exponent)}"
    return judged(expectation, measured, "measured", beside)


def time_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Judge the growth of measured time, and note that of the counted FLOPs beside it."""
    counted = growth(records, x, FLOPS)
    beside = "" if counted is None else f"FLOPs {two_decimals(counted.exponent)}"
    return judged(expectation, growth(records, x, TIME), "measured", beside)


_NAMES = {Outcome.TIMEOUT: "time limit"}
"""Outcomes that are called otherwise than they are stored."""


def smallest_peak(expectation: Expectation, records: Records) -> Finding:
    """Find the smallest measured peak, or else the smallest predicted one of a case that was not
    seen to run out of memory, and name its model.
    """
    ended = [(peak, r) for r in records if (peak := _measured_peak(r)) is not None]
    if ended:
        peak, record = min(ended, key=lambda item: item[0])
        device = f"measured on {record.environment.device_name}"
        return within(expectation, peak, "measured", (_at(record, peak),), _words(record, device))
    ran_out = [r for r in records if r.outcome in (Outcome.DEVICE_OOM, Outcome.HOST_OOM)]
    predicted = [
        (peak, r)
        for r in records
        if r not in ran_out and (peak := r.memory.predicted_peak_bytes) is not None
    ]
    if predicted:
        peak, record = min(predicted, key=lambda item: item[0])
        outcome = _NAMES.get(record.outcome, record.outcome.value)
        tried = "" if record.outcome is Outcome.OK else f"; here: {outcome}"
        words = _words(record, f"predicted, because no run of it finished{tried}")
        return within(expectation, peak, "predicted", (_at(record, peak),), words)
    if ran_out:
        words = _words(ran_out[0], f"ran out of memory on {ran_out[0].environment.device_name}")
        return within(expectation, None, note=words)
    return within(expectation, None, note="no such case was measured or predicted")


def _measured_peak(record: Record) -> int | None:
    allocator = record.memory.allocator
    if record.outcome is not Outcome.OK or allocator is None or allocator.source == "fake-tensor":
        return None
    return record.memory.peak_bytes


def _at(record: Record, peak: float) -> Point:
    return Point(record.case.length, peak)


def _words(record: Record, how: str) -> str:
    model = record.case.model
    return (
        f"{model.n_layers} layers, d_model {model.d_model}, {record.case.length:,} tokens, "
        f"{record.case.optimizer}; {how}"
    )


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
        fit = growth(_evidence_at(swapped, shortest), depth, quantity)
        without = growth(_evidence_at(resident, shortest), depth, quantity)
        beside = "" if without is None else f"without swapping {two_decimals(without.exponent)}"
        return judged(expectation, fit, quantity.basis, beside)
    return judged(expectation, None, "measured")


def _evidence_at(records: Records, n_tokens: float) -> list[Record]:
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
