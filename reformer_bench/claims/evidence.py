"""Evidence: which records a figure of a claim is taken from, and how it is worked out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reformer_bench.claims.fit import Censored, Fit, Point, fit_power
from reformer_bench.schema.model import ModelConfig
from reformer_bench.schema.record import Outcome, Record

Basis = Literal["measured", "predicted", "counted"]
"""Where a figure comes from: measured on a device, predicted from fake tensors, or counted FLOPs.
They are never mixed in one fit."""
Records = Sequence[Record]
Select = Callable[[Records], Records]
"""A step in choosing the records that a figure is taken from."""


@dataclass(frozen=True)
class Evidence:
    """What records say of one figure: an exponent with its interval, or a single number."""

    figure: float | None = None
    """None where the records have no such figure; the note says why."""
    basis: Basis = "measured"
    note: str = ""
    points: tuple[Point, ...] = ()
    axis: str = ""
    """What the figure grows with, where it is an exponent."""
    lower: float | None = None
    upper: float | None = None
    unsettled: tuple[Point, ...] = ()
    """The smallest sizes, which the fit left out because the exponent still changes there."""


Gather = Callable[[Records], Evidence]
"""Works the figure of a claim out of all records that count for it."""


@dataclass(frozen=True)
class Axis:
    """A size that figures grow with: its name, and what it is for a record."""

    name: str
    of: Callable[[Record], float]


TOKENS = Axis("tokens", lambda record: record.case.length)
LAYERS = Axis("layers", lambda record: record.case.config.n_layers)
D_FF = Axis("d_ff", lambda record: record.case.config.d_ff)
HASH_ROUNDS = Axis("hash rounds", lambda record: record.case.config.n_hashes)


@dataclass(frozen=True)
class Quantity:
    """A figure of a record, and where it comes from."""

    of: Callable[[Record], float | None]
    basis: Basis = "measured"
    exceeds: Callable[[Record], float | None] = lambda record: None
    """What the figure of a case that ran out of memory or time is known to exceed."""


def _measured_activations(record: Record) -> float | None:
    found = record.activation_bytes if record.is_measured else None
    return None if found is None else float(found)


def _reached_activations(record: Record) -> float | None:
    reached, fixed = record.memory.peak_bytes, record.fixed_bytes
    known = reached is not None and fixed is not None and reached > fixed
    return float(reached - fixed) if known else None  # type: ignore[operator]


MEMORY = Quantity(_measured_activations, exceeds=_reached_activations)
TIME = Quantity(lambda record: record.step_ms)
FLOPS = Quantity(lambda record: record.flops, "counted")


def predicted_memory(records: Records) -> Quantity:
    """Return the predicted activation memory; the fixed parts come from any record of the same
    model.
    """
    known: dict[ModelConfig, int] = {}
    for record in records:
        if record.fixed_bytes is not None:
            known.setdefault(record.case.config, record.fixed_bytes)

    def of(record: Record) -> float | None:
        if record.is_predicted:
            found = record.activation_bytes
            return None if found is None else float(found)
        peak, fixed = record.memory.predicted_peak_bytes, known.get(record.case.config)
        return float(peak - fixed) if peak is not None and fixed is not None else None

    return Quantity(of, "predicted")


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each case, predictions apart from measurements."""
    return list({(record.case_id, record.is_predicted): record for record in records}.values())


def chosen(records: Records, *steps: Select) -> Records:
    """Return the records that are left after each step."""
    for step in steps:
        records = step(records)
    return records


def keep(test: Callable[[Record], bool]) -> Select:
    """Choose the records that pass a test."""
    return lambda records: [record for record in records if test(record)]


def suite(name: str) -> Select:
    """Choose the records of one suite."""
    return keep(lambda record: record.case.suite == name)


def models(
    *, attention: str | None = None, residual: str | None = None, chunked: bool | None = None
) -> Select:
    """Choose the records whose model has this attention, residual and chunking, whatever its
    variant is called.
    """
    return keep(
        lambda record: (
            (attention is None or set(record.case.config.attention) == {attention})
            and (residual is None or record.case.config.residual == residual)
            and (chunked is None or (record.case.config.ff_chunks > 1) == chunked)
        )
    )


def least(*sizes: Callable[[Record], float]) -> Select:
    """Choose the records of which each of these sizes is the least that any of them has."""

    def select(records: Records) -> Records:
        at = [min(map(size, records), default=0) for size in sizes]
        return [record for record in records if [size(record) for size in sizes] == at]

    return select


def at_longest(records: Records) -> Records:
    """Choose the records of the longest length at which any case finished, so that no fit mixes
    lengths.
    """
    longest = max((record.case.length for record in records if record.finished), default=0)
    return [record for record in records if record.case.length == longest]


def growth(records: Records, axis: Axis, quantity: Quantity) -> Fit | None:
    """Fit the exponent with which a quantity grows along an axis; None where too few records
    have it.
    """
    points, censored = [], []
    for record in records:
        value = quantity.of(record)
        if value is not None and value > 0:
            points.append(Point(axis.of(record), value))
        elif quantity.basis == "measured" and record.outcome.is_limit:
            censored.append(Censored(axis.of(record), quantity.exceeds(record)))
    return fit_power(points, censored)


def fitted(fit: Fit | None, axis: Axis, basis: Basis = "measured", *notes: str) -> Evidence:
    """Make the evidence of a fit, and say which sizes it left out, or that there was nothing to
    fit; further notes stand behind that.
    """
    if fit is None:
        return Evidence(note=joined("fewer than two sizes have a figure", *notes), axis=axis.name)
    return Evidence(
        fit.exponent,
        basis,
        joined(*_left_out(fit), *notes),
        fit.points,
        axis.name,
        fit.lower,
        fit.upper,
        fit.unsettled,
    )


def _left_out(fit: Fit) -> list[str]:
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


def exponent(name: str, fit: Fit | None) -> str:
    """Write a fit that is told beside another as ``FLOPs 1.98``; nothing where there is none."""
    return "" if fit is None else f"{name} {two_decimals(fit.exponent)}"


def memory_growth(
    axis: Axis, *steps: Select, beside: Sequence[tuple[str, Quantity]] = ()
) -> Gather:
    """Fit the growth of measured activation memory, or of predicted memory where none was
    measured, and tell that of other quantities beside it.
    """

    def gather(records: Records) -> Evidence:
        records = chosen(records, *steps)
        measured = growth(records, axis, MEMORY)
        predicted = growth(records, axis, predicted_memory(records))
        notes = [exponent(name, growth(records, axis, quantity)) for name, quantity in beside]
        if measured is None and predicted is not None:
            return fitted(predicted, axis, "predicted", *notes)
        return fitted(measured, axis, "measured", exponent("predicted", predicted), *notes)

    return gather


def time_growth(axis: Axis, *steps: Select) -> Gather:
    """Fit the growth of measured time, and tell that of the counted FLOPs beside it."""

    def gather(records: Records) -> Evidence:
        records = chosen(records, *steps)
        counted = exponent("FLOPs", growth(records, axis, FLOPS))
        return fitted(growth(records, axis, TIME), axis, "measured", counted)

    return gather


def smallest_peak(*steps: Select) -> Gather:
    """Find the smallest measured peak, or else the smallest predicted one of a case that was not
    seen to run out of memory, and name its model.
    """

    def gather(records: Records) -> Evidence:
        records = chosen(records, *steps)
        ended = [
            (peak, record)
            for record in records
            if record.finished and record.is_measured and (peak := record.memory.peak_bytes)
        ]
        if ended:
            return _smallest(ended, "measured", lambda r: f" on {r.environment.device_name}")
        predicted = [
            (peak, record)
            for record in records
            if not record.outcome.is_out_of_memory
            and (peak := record.memory.predicted_peak_bytes) is not None
        ]
        if predicted:
            return _smallest(predicted, "predicted", _why_predicted)
        for record in records:
            if record.outcome.is_out_of_memory:
                how = f"ran out of memory on {record.environment.device_name}"
                return Evidence(note=_model_words(record, how))
        return Evidence(note="no such case was measured or predicted")

    return gather


def _smallest(
    peaks: Sequence[tuple[int, Record]], basis: Basis, how: Callable[[Record], str]
) -> Evidence:
    peak, record = min(peaks, key=lambda item: item[0])
    points = (Point(record.case.length, peak),)
    return Evidence(peak, basis, _model_words(record, f"{basis}{how(record)}"), points)


def _why_predicted(record: Record) -> str:
    ended = {Outcome.TIMEOUT: "time limit"}.get(record.outcome, record.outcome.value)
    return ", because no run of it finished" + ("" if record.finished else f"; here: {ended}")


def _model_words(record: Record, how: str) -> str:
    model = record.case.config
    return (
        f"{model.n_layers} layers, d_model {model.d_model}, {record.case.length:,} tokens, "
        f"{record.case.optimizer}; {how}"
    )


def two_decimals(value: float) -> str:
    """Write a number with two decimals, without a sign on zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def joined(*words: str) -> str:
    """Join notes into one, leaving out empty ones."""
    return "; ".join(word for word in words if word)
