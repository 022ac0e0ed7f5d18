"""The tables that single commands print: predictions, longest sequences, suites and so on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reformer_bench.report.fitted import Column, FittedTable, Row
from reformer_bench.report.frontier import Option, fits, frontier
from reformer_bench.report.words import target_words
from reformer_bench.schema.case import Case
from reformer_bench.schema.devices import DeviceProfile
from reformer_bench.schema.prediction import Prediction
from reformer_bench.schema.record import AllocatorMemory, Environment, Record
from reformer_bench.schema.suite import Suite
from reformer_bench.schema.units import counted, format_bytes, format_tokens

_PARTS = ("parameters", "gradients", "optimizer", "activations", "temporaries")


def _columns(*words: str, numbers: Sequence[str] = ()) -> list[Column]:
    return [*map(Column, words), *(Column(name, right=True) for name in numbers)]


def predictions_table(
    predicted: Sequence[tuple[Case, Prediction]],
    profile: DeviceProfile,
    budget_bytes: int | None,
) -> FittedTable:
    """Show predicted peaks and FLOPs: of each case its memory and the FLOPs of a step; on a GPU
    also its launches, the bytes that they move, and a lower bound of its time.
    """
    headers = ["length", "peak", "params", "grads", "optim", "activ", "temp", "TFLOP"]
    on_gpu = profile.kind == "cuda"
    if on_gpu:
        headers += ["launches", "moved", "time ≥"]
    rows = []
    for case, found in predicted:
        memory, flops = found.memory, found.flops
        peak = memory.peak_allocated_bytes
        parts = [getattr(memory.breakdown, f"{part}_bytes") for part in _PARTS]
        cells = [case.variant, format_tokens(case.length)]
        cells += [*map(format_bytes, (peak, *parts)), f"{flops / 1e12:.3g}"]
        if on_gpu:
            bound = profile.lower_bound_ms(found.moved_bytes, flops, case.products_dtype)
            at_least = "–" if bound is None else f"{bound:.3g} ms"
            cells += [f"{found.launches:,}", format_bytes(found.moved_bytes), at_least]
        if budget_bytes is not None:
            cells.append("yes" if peak <= budget_bytes else "no")
        rows.append(Row(cells))
    first = predicted[0][0]
    title = f"prediction: {first.workload} of batch {first.batch} on {profile.name}"
    if budget_bytes is not None:
        headers.append("fits")
        title += f", which has to fit in {format_bytes(budget_bytes)}"
    return FittedTable(_columns("variant", numbers=headers), rows, title=title)


def small_print(cases: Iterable[Case]) -> list[Text]:
    """Say which target each variant is, where it is one, and what it is built with."""
    said = {c.variant: target_words(c) for c in cases if c.target is not None}
    return [Text(f"{variant}: {words}", style="dim") for variant, words in said.items()]


@dataclass(frozen=True)
class LongestLine:
    """The longest sequence of a model that fits, and what became of it when it was run."""

    variant: str
    length: int | None = None
    """None where not even the shortest fits."""
    peak_bytes: int | None = None
    too_long: int | None = None
    """A length just above that doesn't fit; None where every length that may be tried fits."""
    notes: tuple[str, ...] = ()
    """What the prediction of that length assumes or leaves out."""
    n_predictions: int | None = None
    record: Record | None = None
    """Of that sequence, really run."""
    ran: Record | None = None
    """Of the longest that really ran: that one, or a shorter one where it failed."""


def longest_table(
    lines: Sequence[LongestLine], device: str, budget_bytes: int | None, *, verified: bool
) -> Table:
    """Show the longest sequence of each model, and where ``verified`` what really ran."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"longest sequence in {format_bytes(budget_bytes)} ({device})",
    )
    table.add_column("variant", no_wrap=True)
    for name in ("longest", "its peak", *(("longest run", "measured peak") if verified else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = ["none fits", "–"]
        if line.length is not None:
            more = "" if line.too_long is not None else " or more"
            cells = [f"{line.length:,}{more}", format_bytes(line.peak_bytes)]
        if line.record is not None:
            ran = line.ran
            cells += ["none" if ran is None else f"{ran.case.length:,}"]
            cells += [format_bytes(None if ran is None else ran.memory.peak_bytes)]
        table.add_row(line.variant, *cells)
    return table


class Comparison(Protocol):
    """A case's allocator memory, predicted and measured."""

    @property
    def case(self) -> Case:
        """The case."""

    @property
    def predicted(self) -> AllocatorMemory:
        """Its memory as predicted."""

    @property
    def measured(self) -> AllocatorMemory:
        """Its memory as measured."""

    @property
    def error_bytes(self) -> int:
        """The predicted peak less the measured one."""

    @property
    def error(self) -> float:
        """The error as a share of the measured peak, without its sign."""


def _model_words(case: Case) -> str:
    if case.target is not None:
        return target_words(case)
    return f"{'+'.join(case.config.attention)}, {case.config.residual.value}"


def validation_tables(found: Sequence[Comparison], worst: Comparison) -> list[RenderableType]:
    """Show each predicted peak beside the measured one, and what the worst one is made of."""
    numbers = ("measured", "predicted", "off by")
    rows = []
    for one in found:
        case = one.case
        cells = (
            case.id,
            f"{case.workload}, {_model_words(case)}",
            f"{case.length:,}",
            str(case.batch),
            format_bytes(one.measured.peak_allocated_bytes),
            format_bytes(one.predicted.peak_allocated_bytes),
            f"{one.error_bytes:+,} B" if one.error_bytes else "0",
        )
        rows.append(Row(cells))
    columns = _columns("case", "model", numbers=("length", "batch", *numbers))
    exact = sum(one.error_bytes == 0 for one in found)
    words = (
        f"{exact} of {len(found)} equal to the byte; mean error "
        f"{fmean(one.error for one in found):.4%}, worst {worst.error:.4%}"
    )
    measured, parts = worst.measured.breakdown, []
    for name, count in {} if measured is None else measured.model_dump().items():
        guess = getattr(worst.predicted.breakdown, name, None)
        off_by = "–" if guess is None else f"{guess - count:+,} B" if guess != count else "0"
        part = name.removesuffix("_bytes")
        parts.append(Row((part, format_bytes(count), format_bytes(guess), off_by)))
    return [
        FittedTable(columns, rows, heads=2),
        words,
        FittedTable(
            _columns("at the peak", numbers=numbers), parts, title=f"worst case: {worst.case.id}"
        ),
    ]


class OperatorLine(Protocol):
    """An operator that holds something else than its formula says."""

    @property
    def operator(self) -> str:
        """Its name."""

    @property
    def arguments(self) -> str:
        """Dtypes and shapes of its arguments."""

    @property
    def expected_bytes(self) -> int:
        """What it holds by its formula."""

    @property
    def measured_bytes(self) -> int:
        """What it held."""


def operators_table(
    wrong: Sequence[OperatorLine], n_operators: int, n_samples: int
) -> list[RenderableType]:
    """Show the operators that differ from their formulas, and how many were compared."""
    rows = [
        Row((one.operator, one.arguments, f"{one.expected_bytes:,}", f"{one.measured_bytes:,}"))
        for one in wrong
    ]
    columns = _columns("operator", "arguments", numbers=("expected bytes", "measured bytes"))
    words = (
        f"{n_samples - len(wrong)} of {counted(n_samples, 'sample')} of "
        f"{counted(n_operators, 'operator')} hold what their formulas say"
    )
    return [*([FittedTable(columns, rows, heads=2)] if rows else []), words]


def suites_table(suites: Sequence[Suite]) -> FittedTable:
    """Show what each suite measures, for which claim of the paper, and how long it takes."""
    columns = (
        Column("suite"),
        Column("what it measures", least=36),
        Column("claim", least=22),
        Column("on a CPU", right=True),
        Column("on a GPU", right=True),
    )
    rows = []
    for suite in suites:
        minutes = [suite.expected_minutes.get(kind) for kind in ("cpu", "cuda")]
        name = Text(suite.name, style="bold")
        rows.append(Row((name, suite.description, suite.claim or "–", *map(_duration, minutes))))
    return FittedTable(columns, rows)


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:g} min"


def environment_table(device: str, environment: Environment) -> Table:
    """Show a machine as a record describes it."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("device", device)
    for name, value in environment.model_dump(mode="json").items():
        if name.endswith("_bytes"):
            shown = format_bytes(value)
        elif isinstance(value, dict):
            shown = ", ".join(f"{key} {version}" for key, version in value.items()) or "–"
        else:
            shown = "–" if value in (None, "") else str(value)
        table.add_row(name.removesuffix("_bytes").replace("_", " "), shown)
    return table


def recommendation(
    case: Case,
    device: str,
    budget_bytes: int,
    options: Sequence[Option],
    unit: str,
    best: Option | None,
) -> list[RenderableType]:
    """Show combinations with the one to choose: a title, a table, a sentence and notes.

    ``case`` is one of them, ``unit`` that of their costs: ms or FLOP.
    """
    model = case.config
    title = (
        f"Combinations at {format_tokens(case.length)} tokens on {device}, fastest "
        f"first: {counted(model.n_layers, 'layer')}, d_model {model.d_model}, d_ff {model.d_ff}, "
        f"{counted(model.n_heads, 'head')}, {model.dtype}, batch {case.batch}, "
        f"optimizer {case.optimizer}"
    )
    peak_sources = list(dict.fromkeys(option.peak_source for option in options))
    cost_sources = list(dict.fromkeys(option.cost_source for option in options))
    # Said of each figure only where they are not all of one kind.
    by_peak, by_cost = len(peak_sources) > 1, len(cost_sources) > 1
    worth = {option.name for option in frontier(options)}
    columns = [*_columns("combination", numbers=["peak"]), *[Column("")] * by_peak]
    columns += [Column("step", right=True), *[Column("")] * by_cost, Column("fits"), Column("")]
    rows = []
    for option in sorted(options, key=lambda option: (option.cost, option.peak_bytes)):
        mark = "← choose" if option == best else "on the frontier" if option.name in worth else ""
        within = "yes" if fits(option, budget_bytes) else "no"
        cells = [option.name, format_bytes(option.peak_bytes), *[option.peak_source] * by_peak]
        cells += [_cost(option.cost, unit), *[option.cost_source] * by_cost]
        cells += ["no, ran out when measured" if option.ran_out else within, mark]
        style = "bold" if option == best else "" if option.name in worth else "dim"
        rows.append(Row(cells, style))
    notes = ["Combination: attention, residual stack, pieces of the feed-forward layer."]
    if not by_peak:
        notes += [f"Peaks are {source}." for source in peak_sources]
    if not by_cost and unit == "ms":
        notes += [f"Times are {source}." for source in cost_sources]
    if any(name.startswith("local") for name in worth):
        notes.append(
            "Local attention is another function than full attention: a token sees its "
            "neighbourhood only. --attention leaves it out."
        )
    sentence = _choice(best, unit, format_bytes(budget_bytes))
    return [
        Text(title, style="bold"),
        FittedTable(columns, rows),
        "",
        sentence,
        *(Text(note, style="dim") for note in notes),
    ]


def _choice(best: Option | None, unit: str, budget: str) -> str:
    if best is None:
        return f"No combination fits {budget}."
    basis = (
        "FLOPs are compared, because no run has a time for each of these"
        if unit == "FLOP"
        else best.cost_source
    )
    return (
        f"Fastest that fits {budget}: {best.name}, {format_bytes(best.peak_bytes)} "
        f"({best.peak_source}), {_cost(best.cost, unit)} a step ({basis})."
    )


def _cost(cost: float, unit: str) -> str:
    return f"{cost:,.0f} ms" if unit == "ms" else f"{cost / 1e12:.3g} TFLOP"
