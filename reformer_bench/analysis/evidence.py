"""Evidence: for each claim of the paper a pure function from records to findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reformer_bench.analysis.judging import Expectation, Finding, judged, two_decimals, within
from reformer_bench.analysis.quantities import (
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
from reformer_bench.analysis.scaling import Point
from reformer_bench.spec.record import Outcome, Record

if TYPE_CHECKING:
    from reformer_bench.analysis.judging import Claim

Records = Sequence[Record]
Findings = tuple[Finding, ...]


def length(record: Record) -> float:
    """Tokens of a sequence."""
    return record.case.length


def depth(record: Record) -> float:
    """Layers."""
    return record.case.model.n_layers


def width(record: Record) -> float:
    """Features of the feed-forward layer."""
    return record.case.model.d_ff


def rounds(record: Record) -> float:
    """Hash rounds."""
    return record.case.model.n_hashes


def of_suites(claim: Claim, records: Records) -> list[Record]:
    """Records of the suites that measure a claim."""
    return [record for record in records if record.case.suite in claim.suites]


def where(
    records: Records,
    *,
    attention: str | None = None,
    residual: str | None = None,
    chunked: bool | None = None,
    keep: Callable[[Record], bool] = lambda record: True,
) -> list[Record]:
    """Records whose model attends, keeps and chunks as asked, whatever their variant is called."""
    return [
        record
        for record in records
        if (attention is None or set(record.case.model.attention) == {attention})
        and (residual is None or record.case.model.residual == residual)
        and (chunked is None or (record.case.model.ff_chunks > 1) == chunked)
        and keep(record)
    ]


def at_longest(records: Records) -> list[Record]:
    """Records of the longest length at which any case ended, so that no fit mixes lengths."""
    ended = [length(record) for record in records if record.outcome is Outcome.OK]
    return where(records, keep=lambda r: length(r) == max(ended, default=0))


def memory_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Measured activation memory against an expected power; predicted where none was measured."""
    measured = growth(records, x, MEMORY)
    predicted = growth(records, x, predicted_memory(records))
    if measured is None and predicted is not None:
        return judged(expectation, predicted, "predicted")
    beside = "" if predicted is None else f"predicted {two_decimals(predicted.exponent)}"
    return judged(expectation, measured, "measured", beside)


def time_growth(
    expectation: Expectation, records: Records, x: Callable[[Record], float]
) -> Finding:
    """Measured time against an expected power, with that of the counted FLOPs beside it."""
    counted = growth(records, x, FLOPS)
    beside = "" if counted is None else f"FLOPs {two_decimals(counted.exponent)}"
    return judged(expectation, growth(records, x, TIME), "measured", beside)


def quadratic_full(claim: Claim, records: Records) -> Findings:
    """Full attention: memory and time L²; memory-efficient: memory L, time L²."""
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
    """LSH attention: memory and time about L."""
    lsh = where(of_suites(claim, records), attention="lsh")
    memory, time = claim.expectations
    return memory_growth(memory, lsh, length), time_growth(time, lsh, length)


def depth_free(claim: Claim, records: Records) -> Findings:
    """Activation memory in depth: constant for a reversible stack, linear for a residual one."""
    found = at_longest(where(of_suites(claim, records), keep=_is_float32))
    reversible, standard = claim.expectations
    return (
        memory_growth(reversible, where(found, residual="reversible"), depth),
        memory_growth(standard, where(found, residual="standard"), depth),
    )


def _is_float32(record: Record) -> bool:
    return record.case.model.dtype == "float32"


def ff_chunks(claim: Claim, records: Records) -> Findings:
    """Activation memory in d_ff: constant in chunks, linear without."""
    found = at_longest(of_suites(claim, records))
    chunked, whole = claim.expectations
    return (
        memory_growth(chunked, where(found, chunked=True), width),
        memory_growth(whole, where(found, chunked=False), width),
    )


TABLE_3 = {
    "transformer": ("full", "standard", False),
    "reversible": ("full", "reversible", False),
    "chunked reversible": ("full", "reversible", True),
    "LSH": ("lsh", "standard", False),
    "reformer": ("lsh", "reversible", True),
}
"""(attention, residual, in chunks) of the five models, by the first words of an expectation."""

_LEANER = (
    ("transformer", "reversible"),
    ("reversible", "chunked reversible"),
    ("transformer", "LSH"),
    ("LSH", "reformer"),
)


def table_3(claim: Claim, records: Records) -> Findings:
    """The five models in length, depth and d_ff, and their order."""
    plain, wide = ([r for r in records if r.case.suite == suite] for suite in claim.suites)
    slices = {"length": (length, _along_length), "layers": (depth, _along_depth)}
    slices["d_ff"] = (width, _along_width)
    findings = []
    for expectation in claim.expectations[:-1]:
        name, _, axis = expectation.text.partition(", memory in ")
        x, chosen = slices[axis]
        found = wide if axis == "d_ff" else plain
        findings.append(memory_growth(expectation, chosen(_model_of_table(found, name)), x))
    return (*findings, _order(claim.expectations[-1], plain))


def _model_of_table(records: Records, name: str) -> list[Record]:
    attention, residual, chunked = TABLE_3[name]
    return where(records, attention=attention, residual=residual, chunked=chunked)


def _along_length(records: Records) -> list[Record]:
    """The shallowest and narrowest."""
    least = (min(map(depth, records), default=0), min(map(width, records), default=0))
    return where(records, keep=lambda r: (depth(r), width(r)) == least)


def _along_depth(records: Records) -> list[Record]:
    """The narrowest, at the longest length at which three or more ended."""
    narrow = where(records, keep=lambda r: width(r) == min(map(width, records)))
    ended = Counter(length(r) for r in narrow if activation_bytes(r) is not None)
    longest = max((n for n, count in ended.items() if count >= 3), default=max(ended, default=0))
    return where(narrow, keep=lambda r: length(r) == longest)


def _along_width(records: Records) -> list[Record]:
    """The shallowest, at the shortest length, where d_ff outweighs the scores."""
    at = (min(map(length, records), default=0), min(map(depth, records), default=0))
    return where(records, keep=lambda r: (length(r), depth(r)) == at)


def _order(expectation: Expectation, records: Records) -> Finding:
    """The largest ratio of a leaner model to the one before it, each pair at the longest length
    and then the most layers that both have."""
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
    """Activation memory by length and layers."""
    found = {(length(r), depth(r)): activation_bytes(r) for r in records}
    return {size: value for size, value in found.items() if value is not None}


def flat_speed(claim: Claim, records: Records) -> Findings:
    """Time of a step at a fixed number of tokens: full attention rises with length, LSH not."""
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
    """Error on planted neighbours falls with rounds; time grows with them."""
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
    """Relative error of the output, or the share of attention that no round sees."""

    def of(record: Record) -> float | None:
        for quality in record.quality:
            if quality.inputs == inputs:
                missed = 1 - quality.mass_caught
                return quality.relative_error if which == "error" else missed
        return None

    return Quantity(f"{which} on {inputs} vectors", "measured", of)


def million_tokens(claim: Claim, records: Records) -> Findings:
    """The peak of a training step on a million tokens."""
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
    return (_smallest_peak(fits, found),)


def deep_64k(claim: Claim, records: Records) -> Findings:
    """The peak of 20 layers of the paper's size at 64K tokens; depth costs nothing there."""
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
    return _smallest_peak(fits, size), memory_growth(deep, scaled, depth)


def _smallest_peak(expectation: Expectation, records: Records) -> Finding:
    """The smallest measured peak; else the smallest prediction; with the model it belongs to."""
    ended = [(peak, r) for r in records if (peak := _measured_peak(r)) is not None]
    if ended:
        peak, record = min(ended, key=lambda item: item[0])
        device = f"measured on {record.environment.device_name}"
        return within(expectation, peak, "measured", (_at(record, peak),), _words(record, device))
    predicted = [(peak, r) for r in records if (peak := r.memory.predicted_peak_bytes) is not None]
    if predicted:
        peak, record = min(predicted, key=lambda item: item[0])
        tried = "" if record.outcome is Outcome.OK else f"; here: {record.outcome.value}"
        words = _words(record, f"predicted, not run to its end{tried}")
        return within(expectation, peak, "predicted", (_at(record, peak),), words)
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


def swap_params(claim: Claim, records: Records) -> Findings:
    """Parameters on the device in depth, and what the transfer costs at the longest length."""
    kept, hidden = claim.expectations
    found = where(of_suites(claim, records), keep=lambda r: r.environment.device_kind == "cuda")
    swapped = where(found, keep=lambda r: r.case.model.parameter_offload == "cpu")
    longest = max(map(length, swapped), default=0)
    at_longest = where(swapped, keep=lambda r: length(r) == longest)
    parameters = Quantity("parameters on the device", "measured", _parameters, is_memory=True)
    return (
        judged(kept, growth(at_longest, depth, parameters), "measured"),
        _transfer(hidden, found, longest),
    )


def _parameters(record: Record) -> float | None:
    allocator = record.memory.allocator
    if record.outcome is not Outcome.OK or allocator is None or allocator.breakdown is None:
        return None
    # Swapping that works to the end leaves none at the peak; growth needs a positive figure.
    return float(max(1, allocator.breakdown.parameters_bytes))


def _transfer(expectation: Expectation, records: Records, longest: float) -> Finding:
    """Time with swapping over time without, deepest at the longest length."""
    times: dict[str, tuple[float, float]] = {}
    for record in where(records, keep=lambda r: length(r) == longest):
        value = TIME.of(record)
        if value is not None:
            offload = record.case.model.parameter_offload
            times[offload] = max(times.get(offload, (0.0, 0.0)), (depth(record), value))
    if set(times) != {"none", "cpu"} or times["none"][0] != times["cpu"][0]:
        return within(expectation, None, note="not timed with and without swapping on a GPU")
    return within(expectation, times["cpu"][1] / times["none"][1])


def accuracy(claim: Claim, records: Records) -> Findings:
    """Nothing: accuracy needs training runs, which no suite makes."""
    return ()
