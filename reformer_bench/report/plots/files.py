"""Pictures of a run: which ones its records call for, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from reformer_bench.report.groups import Group, group_records
from reformer_bench.report.plots.curves import Quantity, has_figure
from reformer_bench.report.plots.figures import bars, bars_figure, content, curves_figure
from reformer_bench.report.plots.style import DPI, Look, drawing, looks, metadata
from reformer_bench.report.plots.tradeoff import tradeoff_figure, varies_combinations
from reformer_bench.report.plots.varied import LENGTH, all_series, axes_of, pictures
from reformer_bench.schema.record import Record

FORMATS = ("png", "svg", "pdf")

Asked = Literal["memory", "throughput", "both"]
_ASKED: dict[Asked, tuple[Quantity, ...]] = {
    "memory": ("memory", "activations"),
    "throughput": ("throughput",),
    "both": ("memory", "activations", "throughput"),
}


def write_plots(
    records: Iterable[Record],
    out_dir: Path,
    formats: Sequence[str] = ("png", "svg"),
    quantity: Asked = "both",
    among: Iterable[Record] | None = None,
) -> list[Path]:
    """Draw every group of records into ``out_dir``; returns the files, none if nothing is there.

    What a group's records vary decides: curves against the length, and against the model's layers,
    d_ff, chunks or hash rounds where those vary; bars at a single length; time against memory where
    all combinations of switches are there. ``train_step-memory.png``, ``train_step-throughput.png``
    and so on, with ``-by-layers`` where it isn't by length, and with several quantities an
    ``overview`` of them. ``among``: the records of the whole run where ``records`` are a part of
    it, so that a part looks as it does in the whole. Equal records give equal files. Raises
    ValueError for an unknown format or quantity.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"format {unknown[0]!r} is not one of {', '.join(FORMATS)}")
    if quantity not in _ASKED:
        raise ValueError(f"quantity {quantity!r} is not one of {', '.join(_ASKED)}")
    records = list(records)
    groups = group_records(records)
    named = looks(
        one.name
        for group in (*group_records(among or []), *groups)
        for one in all_series(group, axes_of(group))
    )
    written: list[Path] = []
    with drawing():
        for group, name in zip(groups, _file_names(groups), strict=True):
            overview = "overview" if len(groups) == 1 else f"overview-{name}"
            for file_name, figure in _figures(group, name, overview, quantity, named):
                written += _save(figure, out_dir, file_name, formats)
    return written


def _figures(
    group: Group, name: str, overview: str, asked: Asked, named: Mapping[str, Look]
) -> Iterator[tuple[str, Figure]]:
    """Yield every figure of a group, with the name of its file."""
    if asked == "both" and varies_combinations(group):
        figure = tradeoff_figure(group)
        if figure is not None:
            yield f"{name}-tradeoff", figure
            return
    against = pictures(group)
    if not against:
        yield from _bars(group, name, overview, asked, named)
    for picture in against:
        by = "" if picture.axis is LENGTH else f"-by-{picture.axis.name}"
        # Activations apart only where parameters grow with the size that is drawn against.
        apart = picture.axis.field in ("n_layers", "d_ff")
        whole = content(picture, [q for q in _ASKED[asked] if q != "activations" or apart])
        for quantity in whole.shown:
            figure = curves_figure(group, content(picture, [quantity]), named)
            yield f"{name}-{quantity}{by}", figure
        if asked == "both" and len(whole.shown) > 1:
            yield f"{overview}{by}", curves_figure(group, whole, named)


def _bars(
    group: Group, name: str, overview: str, asked: Asked, named: Mapping[str, Look]
) -> Iterator[tuple[str, Figure]]:
    if not any(map(has_figure, group.records)):
        return
    found = bars(group)
    wanted = [q for q in _ASKED[asked] if q != "activations" and any(b.point(q) for b in found)]
    for quantity in wanted:
        yield f"{name}-{quantity}", bars_figure(group, found, [quantity], named)
    if len(wanted) > 1:
        yield overview, bars_figure(group, found, wanted, named)


def _file_names(groups: Sequence[Group]) -> list[str]:
    """Name the files of groups: the workload, and whatever else tells groups of it apart."""
    names = []
    for group in groups:
        alike = [other for other in groups if other.workload == group.workload]
        name = group.workload
        for field, prefix in (("suite", ""), ("device", ""), ("batch", "batch"), ("seed", "seed")):
            value = getattr(group, field)
            if len({getattr(other, field) for other in alike}) > 1:
                name += f"-{prefix}{'varies' if value is None else value}".replace(":", "")
            alike = [other for other in alike if getattr(other, field) == value]
        names.append(name)
    return names


def _save(figure: Figure, out_dir: Path, name: str, formats: Sequence[str]) -> list[Path]:
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for file_format in formats:
        path = out_dir / f"{name}.{file_format}"
        figure.savefig(path, format=file_format, dpi=DPI, metadata=metadata(file_format))
        paths.append(path)
    return paths
