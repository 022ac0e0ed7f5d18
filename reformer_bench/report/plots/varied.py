"""What a group of records varies: the axes a quantity can be drawn against, and the curves left."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from reformer_bench.report.groups import Group
from reformer_bench.report.plots.curves import has_figure
from reformer_bench.report.words import length_words
from reformer_bench.schema.model import PRESETS, Attention, ModelConfig
from reformer_bench.schema.record import Record
from reformer_bench.schema.units import format_tokens

MOST_CURVES = 8
"""More in one panel are not told apart any more."""
MOST_FACETS = 4
"""Sizes that get a panel each, side by side."""
_SIZE_WORDS = {"layers", "ff", "chunks", "hashes"}
"""What stands before a size in a name, as in ``transformer-layers-4``."""
_LEAST_SIZES = 3
"""Two sizes are two variants; three are an axis."""
_LONGEST_LABEL = 44
"""Characters: longer words about a model would leave no room for its figures."""

ATTENTIONS = {
    "full": "full attention",
    "memory_efficient": "memory-efficient attention",
    "sdpa": "fused attention (SDPA)",
    "local": "local attention",
    "lsh": "LSH attention",
}
RESIDUALS = {
    "standard": "standard residual",
    "checkpointed": "checkpointed",
    "reversible": "reversible",
}
_WORDS: dict[str, Callable[[Any], str]] = {
    "attention": lambda kinds: " + ".join(ATTENTIONS[kind] for kind in kinds),
    "d_model": lambda n: f"d_model {n}",
    "n_layers": lambda n: f"{n} layer{'s' * (n > 1)}",
    "d_ff": lambda n: f"d_ff {n}",
    "n_hashes": lambda n: f"{n} hash{'es' * (n > 1)}",
    "residual": lambda kind: RESIDUALS[kind],
    "ff_chunks": lambda n: "in one piece" if n == 1 else f"in {n} chunks",
    "parameter_offload": lambda where: (
        ("resident" if where == "none" else "swapped") + " parameters"
    ),
    "dtype": lambda name: "" if name == "float32" else name,
}
_FOLLOWS = {
    "d_ff": "d_model",
    "n_heads": "d_model",
    "d_head": "d_model",
    "loss_chunks": "ff_chunks",
    "head_groups": "attention",
    "shared_qk": "attention",
    "axial_dims": "d_model",
}
"""Fields that are left unsaid where another one differs that they go with."""


def differences(records: Sequence[Record], unsaid: Collection[str | None]) -> list[str]:
    """Say of each record's model all fields in which some of the models differ, but for ``unsaid``
    ones; of targets nothing, since they are other people's models under names of their own.
    """
    if any(record.case.target for record in records):
        return [""] * len(records)
    models = [record.case.config for record in records]
    others = [name for name in ModelConfig.model_fields if name not in _WORDS]
    names = [
        name
        for name in (*_WORDS, *others)
        if name not in unsaid and len({getattr(model, name) for model in models}) > 1
    ]
    told = [name for name in names if _FOLLOWS.get(name) not in names]
    return [", ".join(filter(None, (_words(m, name) for name in told))) for m in models]


def _words(model: ModelConfig, name: str) -> str:
    if name == "n_hashes" and Attention.LSH not in model.attention:
        return ""
    value = getattr(model, name)
    return _WORDS[name](value) if name in _WORDS else f"{name} {value}"


@dataclass(frozen=True)
class Axis:
    """A size that records differ in."""

    name: str
    """As a part of file names."""
    label: str
    field: str | None
    """The model's field; None: the sequence length, which belongs to the case."""
    words: Callable[[int], str]
    """One size in words: ``4 layers``."""

    def words_in(self, group: Group, size: int) -> str:
        """Say one size of a group, a length with what it counts there."""
        return self.words(size) if self.field is not None else length_words(size, group.records)

    def of(self, record: Record) -> int:
        """Return the record's size."""
        if self.field is None:
            return record.case.length
        # A target is one size of its kind.
        return 0 if record.case.target else int(getattr(record.case.config, self.field))


LENGTH = Axis("length", "sequence length", None, format_tokens)
_MODEL_AXES = (
    Axis("layers", "layers", "n_layers", lambda n: f"{n} layer{'s' * (n > 1)}"),
    Axis("d_ff", "d_ff", "d_ff", lambda n: f"d_ff {n}"),
    Axis("ff_chunks", "feed-forward chunks", "ff_chunks", lambda n: f"{n} chunk{'s' * (n > 1)}"),
    Axis("rounds", "hash rounds", "n_hashes", lambda n: f"{n} hash{'es' * (n > 1)}"),
)


@dataclass(frozen=True)
class Series:
    """Records that differ in sizes only: one curve of each panel."""

    name: str
    """What the names of its variants share; its look goes by it."""
    label: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Facet:
    """One panel's curves; the title is empty where there is one panel only."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Picture:
    """What is drawn against one axis."""

    axis: Axis
    facets: tuple[Facet, ...]
    note: str = ""
    """Which sizes have no panel."""

    @property
    def labels(self) -> dict[str, str]:
        """The label of each series by its name, in order of first appearance."""
        return {series.name: series.label for facet in self.facets for series in facet.series}


def pictures(group: Group) -> list[Picture]:
    """Return a picture for each axis of a group; none where nothing varies but the variant."""
    found = axes_of(group)
    return [_picture(group, axis, found) for axis in found]


def axes_of(group: Group) -> list[Axis]:
    """Return the axes to draw a group against, the length first.

    The length is one from two lengths on that have a figure. A size of the model is one where
    models that differ in nothing else have three values of it; beside lengths, where that holds of
    two kinds of model (of one kind, sizes rather tell curves apart). Two lengths beside such a
    size get panels of their own instead.
    """
    lengths = {record.case.length for record in group.records if has_figure(record)}
    has_lengths = len(lengths) > 1
    sizes = [axis for axis in _MODEL_AXES if _n_along(group, axis) >= (2 if has_lengths else 1)]
    if has_lengths and not (sizes and len(lengths) < _LEAST_SIZES):
        return [LENGTH, *sizes]
    return sizes


def all_series(group: Group, axes: Sequence[Axis]) -> list[Series]:
    """Sort the group's records by all but the sizes on ``axes``, in order of first appearance."""
    buckets: dict[Any, list[Record]] = {}
    along = [axis for axis in axes if axis.field is not None]
    for record in group.records:
        key = _rest(record, along) if along else record.case.variant
        buckets.setdefault(key, []).append(record)
    names = {key: _shared_name(records, along) for key, records in buckets.items()}
    if len(set(names.values())) < len(names):
        names = {key: records[0].case.variant for key, records in buckets.items()}
    labels = _labels([(names[key], records) for key, records in buckets.items()], along)
    return [
        Series(names[key], label, tuple(records))
        for (key, records), label in zip(buckets.items(), labels, strict=True)
    ]


def _picture(group: Group, axis: Axis, axes: Sequence[Axis]) -> Picture:
    series = all_series(group, axes)
    others = [other for other in axes if other is not axis]
    if axis is not LENGTH and LENGTH not in others and len(group.lengths) > 1:
        others.insert(0, LENGTH)
    sizes = sorted({tuple(o.of(r) for o in others) for r in group.records if has_figure(r)})
    shown = _spread(sizes, MOST_FACETS)
    facets, titles = [], []
    for size in shown:
        title = ", ".join(o.words_in(group, n) for o, n in zip(others, size, strict=True))
        within = [_at(one, others, size) for one in series]
        facets += _readable(title, [one for one in within if one.records])
        titles.append(title)
    note = ""
    if len(shown) < len(sizes):
        note = f"Panels: {'; '.join(titles)}, of {len(sizes)} that there are."
    return Picture(axis, tuple(facets), note)


def _at(series: Series, axes: Sequence[Axis], size: tuple[int, ...]) -> Series:
    records = tuple(r for r in series.records if tuple(axis.of(r) for axis in axes) == size)
    return Series(series.name, series.label, records)


def _spread(sizes: Sequence[tuple[int, ...]], most: int) -> list[tuple[int, ...]]:
    """Return at most so many of the sizes, evenly spread from the first to the last."""
    if len(sizes) <= most:
        return list(sizes)
    return [sizes[round(i * (len(sizes) - 1) / (most - 1))] for i in range(most)]


def _readable(title: str, series: list[Series]) -> list[Facet]:
    """Return one panel, or several by a switch of the model where its curves would be too many."""
    if len(series) <= MOST_CURVES:
        return [Facet(title, tuple(series))]
    for switch in ("attention", "residual", "ff_chunks"):
        parts: dict[str, list[Series]] = {}
        for one in series:
            case = one.records[0].case
            value = "other" if case.target else getattr(case.config, switch)
            words = str(value) if isinstance(value, str | int) else "+".join(value)
            parts.setdefault(f"{switch} {words}".replace("_", "-"), []).append(one)
        if len(parts) > 1 and all(len(part) <= MOST_CURVES for part in parts.values()):
            break
    else:
        starts = range(0, len(series), MOST_CURVES)
        cut = [(start, series[start : start + MOST_CURVES]) for start in starts]
        n = len(series)
        parts = {f"variants {start + 1} to {start + len(part)} of {n}": part for start, part in cut}
    prefix = f"{title}, " if title else ""
    return [Facet(prefix + name, tuple(part)) for name, part in parts.items()]


def _n_along(group: Group, axis: Axis) -> int:
    """Count the kinds of model that come in three sizes or more, each size once a length."""
    sizes: dict[Any, list[int]] = {}
    for record in group.records:
        key = (_rest(record, [axis]), record.case.length)
        sizes.setdefault(key, []).append(axis.of(record))
    along = (kind for (kind, _), n in sizes.items() if len(set(n)) == len(n) >= _LEAST_SIZES)
    return len(set(along))


def _rest(record: Record, axes: Iterable[Axis]) -> Hashable:
    """Return all that decides what is run, but for some sizes."""
    if record.case.target:
        return record.case.variant
    plain = {axis.field: 1 for axis in axes if axis.field is not None}
    return record.case.implementation, record.case.config.model_copy(update=plain)


def _shared_name(records: Sequence[Record], axes: Sequence[Axis]) -> str:
    """Return the words that all names begin with, without the sizes on the axes."""
    names = []
    for record in records:
        sizes = {str(axis.of(record)) for axis in axes}
        parts = record.case.variant.split("-")
        while len(parts) > 1 and parts[-1] in sizes:
            parts.pop()
            if len(parts) > 1 and parts[-1] in _SIZE_WORDS:
                parts.pop()
        names.append(parts)
    # Parts after the shortest name's last have nothing to be compared with.
    columns = takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))
    shared = [parts[0] for parts in columns]
    return "-".join(shared) or records[0].case.variant


def _labels(found: Sequence[tuple[str, Sequence[Record]]], axes: Sequence[Axis]) -> list[str]:
    """Say what to call each series: a model's or a chosen name, else what its models differ in.

    A name with bare numbers in it (``local-standard-1``) tells a reader nothing. Neither does a
    list of everything in which the models of a suite for all switches differ.
    """
    fields = {axis.field for axis in axes}
    everyone = differences([records[0] for _, records in found], fields)
    labels = []
    for (name, records), words in zip(found, everyone, strict=True):
        variants = {record.case.variant for record in records}
        # Named by its kind of attention alone: in full, and as what it really is.
        is_kind = name.replace("-", "_") in ATTENTIONS
        is_name = variants == {name} and not is_kind and not re.search(r"\d", name)
        foreign = records[0].case.implementation != "native"
        told = words if 0 < len(words) <= _LONGEST_LABEL else name
        labels.append(name if is_name or foreign or name in PRESETS else told)
    return labels if len(set(labels)) == len(labels) else [name for name, _ in found]
