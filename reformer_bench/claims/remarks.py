"""Crossovers: the length from which one way of attending takes less than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from reformer_bench.claims.quantities import is_measured, latest, measured_activations, step_ms
from reformer_bench.schema.record import Outcome, Record
from reformer_bench.schema.units import format_bytes, format_tokens


@dataclass(frozen=True)
class Crossover:
    """The length from which the challenger takes less."""

    length: float
    between: tuple[float, float]
    """The two measured lengths between which it lies."""


def crossover(challenger: Mapping[float, float], other: Mapping[float, float]) -> Crossover | None:
    """Find the length from which the challenger's figure stays below the other's.

    Both arguments have figures by length; only lengths that both have count. Between the two
    lengths around the crossover both figures are taken to follow power laws. The result is None
    where the challenger never wins within the measured range, or wins in all of it: nothing is
    extrapolated.
    """
    lengths = sorted(set(challenger) & set(other))
    gaps = [(x, math.log(challenger[x] / other[x])) for x in lengths]
    found = None
    for (before, gap), (after, next_gap) in pairwise(gaps):
        if gap >= 0 > next_gap:
            share = gap / (gap - next_gap)
            at = math.exp(math.log(before) + share * math.log(after / before))
            found = Crossover(at, (before, after))
        elif gap < 0 <= next_gap:
            found = None
    return found


def ahead_all_along(challenger: Mapping[float, float], other: Mapping[float, float]) -> bool:
    """Whether the challenger takes less at each length that both have."""
    lengths = set(challenger) & set(other)
    return bool(lengths) and all(challenger[x] < other[x] for x in lengths)


Figure = Callable[[Record], float | None]

_RIVALS = (
    ("attention-scaling", "lsh", "sdpa"),
    ("seq-scaling", "lsh-transformer", "flash-transformer"),
    ("seq-scaling", "reformer", "flash-transformer"),
)
_FIGURES: tuple[tuple[str, Figure], ...] = (
    ("time", step_ms),
    ("memory", lambda record: record.memory.peak_bytes),
)


def remarks(records: Sequence[Record]) -> list[str]:
    """Return sentences, each with the figures it rests on; none where nothing was measured."""
    usable = [r for r in latest(records) if r.outcome is Outcome.OK and is_measured(r)]
    found = [
        _rivalry(usable, suite, one, other, name, figure)
        for suite, one, other in _RIVALS
        for name, figure in _FIGURES
    ]
    depth = [record for record in usable if record.case.suite == "depth-scaling"]
    found += [_checkpointing(depth), _narrow(depth)]
    return [sentence for sentence in found if sentence is not None]


def _rivalry(
    records: Sequence[Record], suite: str, one: str, other: str, name: str, figure: Figure
) -> str | None:
    """Say from which length LSH attention takes less than fused attention."""
    curves = {
        variant: {
            float(record.case.length): value
            for record in records
            if record.case.suite == suite and record.case.variant == variant
            if (value := figure(record)) is not None
        }
        for variant in (one, other)
    }
    shared = sorted(set(curves[one]) & set(curves[other]))
    if not shared:
        return None
    ends = (format_tokens(int(length)) for length in sorted({shared[0], shared[-1]}))
    where = f"({suite}, {' to '.join(ends)} tokens)"
    if ahead_all_along(curves[one], curves[other]):
        return f"{one} takes less {name} than {other} at every length measured {where}."
    found = crossover(curves[one], curves[other])
    if found is None:
        return f"{one} takes no less {name} than {other} at the longest length measured {where}."
    low, high = (format_tokens(int(length)) for length in found.between)
    return (
        f"{one} takes less {name} than {other} from about {round(found.length, -2):,.0f} tokens, "
        f"between {low} and {high} {where}."
    )


def _checkpointing(records: Sequence[Record]) -> str | None:
    """Say how activations grow with depth in each kind of stack, and what a step of the deepest
    takes.
    """
    by_residual = {
        residual: {
            record.case.model.n_layers: record
            for record in records
            if record.case.variant.startswith(f"{residual}-") and _float32(record)
        }
        for residual in ("standard", "checkpointed", "reversible")
    }
    shared = sorted(set.intersection(*(set(found) for found in by_residual.values())))
    if len(shared) < 2:
        return None
    few, many = shared[0], shared[-1]
    growths, times = [], []
    for residual, found in by_residual.items():
        before, after = (measured_activations(found[layers]) for layers in (few, many))
        time = step_ms(found[many])
        if before is None or after is None or time is None:
            return None
        growths.append(f"{after / before:.2f} times in a {residual} one (to {format_bytes(after)})")
        times.append(f"{time:,.0f}")
    return (
        f"From {few} to {many} layers, the memory of a stack besides its parameters and gradients "
        f"grows {_listed(growths)}; a step of {many} layers takes {_listed(times)} ms "
        "(depth-scaling)."
    )


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _narrow(records: Sequence[Record]) -> str | None:
    """Say what bfloat16 sublayers change in a reversible model."""
    for narrow in records:
        if narrow.case.model.dtype != "bfloat16":
            continue
        plain = narrow.case.model.model_copy(update={"dtype": "float32"})
        for wide in records:
            figures = [f(r) for r in (narrow, wide) for f in (measured_activations, step_ms)]
            if wide.case.model != plain or None in figures:
                continue
            memory, time, wide_memory, wide_time = (f for f in figures if f is not None)
            return (
                f"In a reversible model of {plain.n_layers} layers, sublayers in bfloat16 take "
                f"{memory / wide_memory:.2f} times the activation memory and "
                f"{time / wide_time:.2f} times the time of sublayers in float32 (depth-scaling); "
                "the streams are 32 bits wide in both."
            )
    return None


def _float32(record: Record) -> bool:
    return record.case.model.dtype == "float32"
