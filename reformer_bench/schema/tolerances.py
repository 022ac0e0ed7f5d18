"""Tolerances say by how much each figure of a case may grow before that is a regression."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from reformer_bench.schema.case import Case
from reformer_bench.schema.errors import InputError, read_text, validated
from reformer_bench.schema.units import MIB, format_bytes, parse_bytes


class Metric(StrEnum):
    """The figures that are compared, by what measured them."""

    PREDICTED = "predicted"
    ALLOCATED = "allocated"
    RESERVED = "reserved"
    NVML = "nvml"
    RESIDENT = "resident"
    TIME = "time"

    @property
    def is_exact(self) -> bool:
        """Whether an unchanged model gives the same figure, byte for byte, every time."""
        return self in (Metric.PREDICTED, Metric.ALLOCATED, Metric.RESERVED)

    @property
    def unit(self) -> Literal["bytes", "ms"]:
        """The unit that the figure is counted in."""
        return "ms" if self is Metric.TIME else "bytes"


@dataclass(frozen=True)
class Tolerance:
    """The growth that is allowed: up to a share of the old figure, or up to a number of bytes."""

    share: float
    at_least_bytes: int = 0
    """Growth of no more bytes than this is allowed, whatever its share."""
    gate: bool = True
    """Whether growth beyond it is a regression; False: it is only shown."""

    def allows(self, old: float, new: float) -> bool:
        """Whether a figure may go from old to new."""
        return new - old <= max(self.share * old, self.at_least_bytes)

    def __str__(self) -> str:
        text = f"{100 * self.share:.3g}%"
        return f"{text} or {format_bytes(self.at_least_bytes)}" if self.at_least_bytes else text


DEFAULTS: dict[Metric, Tolerance] = {
    Metric.PREDICTED: Tolerance(0.005),
    Metric.ALLOCATED: Tolerance(0.005),
    # The caching allocator takes memory in segments of 2 and 20 MiB.
    Metric.RESERVED: Tolerance(0.02, 20 * MIB),
    Metric.NVML: Tolerance(0.05, 64 * MIB),
    Metric.RESIDENT: Tolerance(0.10, 64 * MIB),
    Metric.TIME: Tolerance(0.25, gate=False),
}
"""The tolerances where no rule says otherwise."""


def parse_share(value: Any) -> float:
    """Read a share from ``"0.5%"`` or a number (0.005); ValueError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a share: write a percentage, for example 0.5%")
    return float(match[1]) / 100


Share = Annotated[float, Field(ge=0), BeforeValidator(parse_share)]
Size = Annotated[int, Field(ge=0), BeforeValidator(parse_bytes)]


class Rule(BaseModel):
    """A tolerance for the cases and the metric that it names; what it doesn't name it
    leaves alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str | None = None
    variant: str | None = None
    case: str | None = None
    """The id of the one case that it is for."""
    metric: Metric | None = None
    """None stands for all metrics."""
    tolerance: Share | None = None
    at_least: Size | None = None
    gate: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.tolerance is None and self.at_least is None and self.gate is None:
            raise ValueError("a rule needs one of tolerance, at_least, gate")
        return self

    @property
    def specificity(self) -> tuple[bool, bool, bool, bool]:
        """A number that is greater for the rule that wins: a case's beats a variant's, and that a
        suite's.
        """
        return (
            self.case is not None,
            self.variant is not None,
            self.suite is not None,
            self.metric is not None,
        )

    def covers(self, case: Case, metric: Metric) -> bool:
        """Whether the rule is about that figure of that case."""
        return (
            self.case in (None, case.id)
            and self.variant in (None, case.variant)
            and self.suite in (None, case.suite)
            and self.metric in (None, metric)
        )

    def changed(self, old: Tolerance) -> Tolerance:
        """Return a tolerance with what the rule names put in its place."""
        return Tolerance(
            share=old.share if self.tolerance is None else self.tolerance,
            at_least_bytes=old.at_least_bytes if self.at_least is None else self.at_least,
            gate=old.gate if self.gate is None else self.gate,
        )


class Tolerances(BaseModel):
    """Rules, of which the most specific wins; of two equally specific ones the later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: tuple[Rule, ...] = ()
    override: tuple[Rule, ...] = Field(default=(), exclude=True)
    """Rules from the command line, which win over all of a file's."""

    def of(self, case: Case, metric: Metric) -> Tolerance:
        """Return what holds for a figure of a case, field by field."""
        found = DEFAULTS[metric]
        for rules in (self.tolerance, self.override):
            for rule in sorted(rules, key=lambda rule: rule.specificity):
                if rule.covers(case, metric):
                    found = rule.changed(found)
        return found

    def with_options(self, options: Iterable[str]) -> Tolerances:
        """Add ``[VARIANT:]METRIC=SHARE`` options on top; InputError for any other text."""
        return self.model_copy(update={"override": tuple(map(parse_option, options))})


def parse_option(text: str) -> Rule:
    """Read a rule from ``allocated=0.5%``, ``reformer:time=30%`` or ``time=off``.

    A share switches the gate on; ``off`` switches it off.
    """
    target, equals, value = text.partition("=")
    variant, _, metric = target.rpartition(":")
    if not equals or not metric:
        raise InputError(
            f"--tolerance: expected [VARIANT:]METRIC=SHARE such as allocated=0.5%, got {text!r}"
        )
    data: dict[str, Any] = {"metric": metric.strip()}
    if variant:
        data["variant"] = variant.strip()
    if value.strip() == "off":
        data["gate"] = False
    else:
        # A size that passes whatever its share would make the share asked for meaningless.
        data |= {"tolerance": value, "at_least": 0, "gate": True}
    return validated(Rule, data, where=f"--tolerance {text}")


def load_tolerances(path: Path) -> Tolerances:
    """Load the rules of a TOML file, one ``[[tolerance]]`` table each.

    Raises InputError naming file, key, value and what is allowed.
    """
    text = read_text(path, "a .toml file of [[tolerance]] tables")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    if "override" in data:
        raise InputError(f"{path}: unknown key 'override' (allowed: tolerance)")
    return validated(Tolerances, data, where=str(path))
