"""Remarks: what the runs say beyond the paper's claims, in sentences with their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from reformer_bench.claims.evidence import latest
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import format_bytes, format_tokens

_RIVALS = (
    ("attention-scaling", "lsh", "sdpa"),
    ("seq-scaling", "lsh-transformer", "flash-transformer"),
    ("seq-scaling", "reformer", "flash-transformer"),
)
_FIGURES: tuple[tuple[str, Callable[[Record], float | None]], ...] = (
    ("time", lambda record: record.step_ms),
    ("memory", lambda record: record.memory.peak_bytes),
)


def remarks(records: Sequence[Record]) -> list[str]:
    """Return sentences, each with the figures it rests on; none where nothing was measured."""
    usable = [
        record
        for record in latest(records)
        if record.finished and record.is_measured and record.case.target is None
    ]
    found = []
    for suite, one, other in _RIVALS:
        for name, figure in _FIGURES:
            curves = [
                {
                    record.case.length: value
                    for record in usable
                    if record.case.suite == suite and record.case.variant == variant
                    if (value := figure(record)) is not None
                }
                for variant in (one, other)
            ]
            found.append(_rivalry(suite, one, other, name, *curves))
    in_depth = [record for record in usable if record.case.suite == "depth-scaling"]
    found += [_checkpointing(in_depth), _narrow(in_depth)]
    return [sentence for sentence in found if sentence is not None]


def _rivalry(
    suite: str,
    one: str,
    other: str,
    name: str,
    figures: Mapping[int, float],
    others: Mapping[int, float],
) -> str | None:
    """Say from which length LSH attention takes less than fused attention."""
    shared = sorted(figures.keys() & others.keys())
    if not shared:
        return None
    ends = (format_tokens(length) for length in sorted({shared[0], shared[-1]}))
    where = f"({suite}, {' to '.join(ends)} tokens)"
    if ahead_all_along(figures, others):
        return f"{one} takes less {name} than {other} at every length measured {where}."
    found = crossover(figures, others)
    if found is None:
        return f"{one} takes no less {name} than {other} at the longest length measured {where}."
    low, high = (format_tokens(int(length)) for length in found.between)
    return (
        f"{one} takes less {name} than {other} from about {round(found.length, -2):,.0f} tokens, "
        f"between {low} and {high} {where}."
    )


@dataclass(frozen=True)
class Crossover:
    """The length from which the challenger takes less."""

    length: float
    between: tuple[float, float]
    """The two measured lengths between which it lies."""


def crossover(challenger: Mapping[int, float], other: Mapping[int, float]) -> Crossover | None:
    """Find the length from which the challenger's figure stays below the other's.

    Both arguments have figures by length; only lengths that both have count. Between the two
    lengths around the crossover both figures are taken to follow power laws. The result is None
    where the challenger never wins within the measured range, or wins in all of it: nothing is
    extrapolated.
    """
    lengths = sorted(challenger.keys() & other.keys())
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


def ahead_all_along(challenger: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether the challenger takes less at each length that both have."""
    lengths = challenger.keys() & other.keys()
    return bool(lengths) and all(challenger[x] < other[x] for x in lengths)


def _checkpointing(records: Sequence[Record]) -> str | None:
    """Say how activations grow with depth in each kind of stack, and what a step of the deepest
    takes.
    """
    by_residual = {
        residual: {
            record.case.config.n_layers: record
            for record in records
            if record.case.variant.startswith(f"{residual}-")
            and record.case.config.dtype == "float32"
        }
        for residual in ("standard", "checkpointed", "reversible")
    }
    shared = sorted(set.intersection(*(set(found) for found in by_residual.values())))
    if len(shared) < 2:
        return None
    few, many = shared[0], shared[-1]
    growths, times = [], []
    for residual, found in by_residual.items():
        before, after = found[few].activation_bytes, found[many].activation_bytes
        time = found[many].step_ms
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
    known = [
        (record.case.config, record.activation_bytes, record.step_ms)
        for record in records
        if record.activation_bytes is not None and record.step_ms is not None
    ]
    for model, memory, time in known:
        plain = model.model_copy(update={"dtype": "float32"})
        for wide, wide_memory, wide_time in known:
            if model.dtype == "bfloat16" and wide == plain:
                return (
                    f"In a reversible model of {plain.n_layers} layers, sublayers in bfloat16 take "
                    f"{memory / wide_memory:.2f} times the activation memory and "
                    f"{time / wide_time:.2f} times the time of sublayers in float32 "
                    "(depth-scaling); the streams are 32 bits wide in both."
                )
    return None
