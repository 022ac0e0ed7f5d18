"""A suite is what one TOML file says is to be measured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    create_model,
    field_validator,
    model_validator,
)

from reformer_bench.schema.case import DeviceKind, Seed, Workload
from reformer_bench.schema.errors import InputError, did_you_mean, read_text, validated
from reformer_bench.schema.model import PRESETS, Dtype, ModelConfig
from reformer_bench.schema.target import TargetName, parse_target, placed_target
from reformer_bench.schema.training import Evaluation, Optimizer, TrainTable
from reformer_bench.schema.units import parse_lengths


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# The fields of ModelConfig and their types, without its rules on combinations: those can only be
# judged once the base model, the device's table, the preset and the variant are put together.
ModelTable: Any = create_model(
    "ModelTable",
    __base__=_Table,
    checkpoint=(str | None, None),
    **{name: (field.annotation, field) for name, field in ModelConfig.model_fields.items()},  # type: ignore[call-overload]
)
"""Some fields of a ModelConfig; ``fields_of`` tells which. It may also have ``checkpoint``, a
folder saved by transformers that fields and weights come from, which is set aside before the model
is put together."""


def fields_of(table: BaseModel) -> dict[str, Any]:
    """Return the fields that a table sets, as JSON values."""
    return table.model_dump(mode="json", exclude_unset=True)


def _as_lengths(value: Any) -> Any:
    """Read lengths from ``"512..64K"``, a number, or a list of numbers and such texts."""
    if isinstance(value, str):
        return parse_lengths(value)
    if type(value) is int:
        return (value,)
    if isinstance(value, list | tuple):
        flat: list[Any] = []
        for item in value:
            flat.extend(parse_lengths(item) if isinstance(item, str) else [item])
        return tuple(flat)
    return value


def _as_names(value: Any) -> Any:
    """Read names from ``"train_step,forward"`` or a list."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _as_counts(value: Any) -> Any:
    """Read batch sizes from ``"1,2"``, a number or a list of numbers."""
    return (value,) if type(value) is int else _as_names(value)


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Lengths = Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(_as_lengths)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1), BeforeValidator(_as_counts)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
Workloads = Annotated[tuple[Workload, ...], Field(min_length=1), BeforeValidator(_as_names)]


class Variant(_Table):
    """A model of a suite: a preset, fields on top of it, and whose code runs it; or anybody's model
    by its target.
    """

    preset: str | None = None
    implementation: Literal["native", "reformer-pytorch", "transformers"] = "native"
    model: ModelTable = Field(default_factory=ModelTable)
    model_from: str | None = None
    """A target, as ``--model`` takes it. A file's path begins at the suite's own folder."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the target's factory."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of the configuration of a target that is a type of transformers' models."""
    dtype: Dtype | None = None
    """What a target's parameters are turned into; None leaves them as they are built."""
    train: TrainTable = TrainTable()
    """What is set above the suite's own ``train``."""
    eval: Evaluation = Evaluation()
    """What is set above the suite's own ``eval``."""

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            raise ValueError(
                f"not a preset{did_you_mean(name, PRESETS)} (allowed: {', '.join(PRESETS)})"
            )
        return name

    @model_validator(mode="after")
    def _target_or_own(self) -> Variant:
        if self.model_from is None:
            for key in ("args", "config", "dtype"):
                if getattr(self, key):
                    raise ValueError(f"{key!r} needs 'model_from'")
            return self
        try:
            name = parse_target(self.model_from, option="model_from")
        except InputError as error:
            raise ValueError(str(error)) from None
        for key in ("preset", "implementation", "model"):
            if key in self.model_fields_set and (key != "model" or fields_of(self.model)):
                raise ValueError(f"'model_from' and {key!r} exclude each other: give one of them")
        if name.runs_code and self.config:
            raise ValueError("'config' is for hf: targets; a factory's arguments are 'args'")
        if not name.runs_code and self.args:
            raise ValueError("'args' is for a factory's arguments; an hf: target has 'config'")
        return self

    @property
    def target(self) -> TargetName | None:
        """The target; None for a model of this package or of a peer."""
        return None if self.model_from is None else parse_target(self.model_from)


class DeviceTable(_Table):
    """What is different on one kind of device: lengths, model, and how long things may take."""

    lengths: Lengths | None = None
    model: ModelTable = Field(default_factory=ModelTable)
    case_timeout_s: Seconds = 600.0
    """A case that takes longer than this is killed."""
    total_time_s: Seconds | None = None
    """A case is not started if it isn't going to end within this time of the run's start."""
    min_samples: Annotated[int, Field(ge=0)] = 1
    max_samples: Annotated[int, Field(ge=0)] = 20
    """With 0 the cold step alone is run, for cases whose step takes minutes."""
    sample_time_s: Seconds = 2.0
    """Timed steps of a case go on for this long, within the two numbers of samples."""

    @model_validator(mode="after")
    def _ordered(self) -> DeviceTable:
        if self.min_samples > self.max_samples:
            raise ValueError(
                f"min_samples = {self.min_samples} is more than max_samples = {self.max_samples}"
            )
        return self


class Suite(_Table):
    """What is measured: every variant at every length, batch and workload; or other suites.

    A model is put together from, in growing precedence: ``model``, the device's ``model``, the
    variant's preset, a checkpoint, and the variant's ``model``.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    description: str
    claim: str | None = None
    """The table, figure or sentence of the paper that it belongs to."""
    expected_minutes: dict[DeviceKind, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    model: ModelTable = Field(default_factory=ModelTable)
    workloads: Workloads = ("train_step",)
    includes: Names = ()
    """The suites that make up this one, which then has no variants of its own: one run measures
    them all, each by its own limits."""
    lengths: Lengths = ()
    batches: Counts | None = None
    """None stands for one sequence, unless ``tokens`` is given."""
    tokens: Count | None = None
    """How many tokens a step has, the same at every length: batch = tokens / length."""
    optimizer: Optimizer = "adam"
    train: TrainTable = TrainTable()
    """How training runs, for every variant."""
    eval: Evaluation = Evaluation()
    """How inference runs, for every variant."""
    seed: Seed = 0
    variants: Annotated[dict[str, Variant], Field(min_length=1)] = Field(default_factory=dict)
    baseline_variant: str | None = None
    """Tables give every variant's figures as multiples of this one's as well."""
    device: dict[DeviceKind, DeviceTable] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _own_or_included(self) -> Suite:
        for key in ("lengths", "variants"):
            if not self.includes and not getattr(self, key):
                raise ValueError(f"{key!r} is missing")
            if self.includes and getattr(self, key):
                raise ValueError(f"'includes' and {key!r} exclude each other: give one of them")
        return self

    @model_validator(mode="after")
    def _one_batch_rule(self) -> Suite:
        if self.tokens is not None and self.batches is not None:
            raise ValueError("'batches' and 'tokens' exclude each other: give one of them")
        return self

    @model_validator(mode="after")
    def _known_baseline(self) -> Suite:
        if self.baseline_variant is not None and self.baseline_variant not in self.variants:
            raise ValueError(
                f"baseline_variant = {self.baseline_variant!r} is not a variant"
                f"{did_you_mean(self.baseline_variant, self.variants)} "
                f"(allowed: {', '.join(self.variants)})"
            )
        return self

    def on(self, kind: DeviceKind) -> DeviceTable:
        """Return the table of a kind of device; its defaults where the suite has none."""
        return self.device.get(kind, DeviceTable())

    def lengths_on(self, kind: DeviceKind) -> tuple[int, ...]:
        """Return the lengths to measure there, shortest first, each once."""
        return tuple(sorted(set(self.on(kind).lengths or self.lengths)))

    def batches_at(self, length: int) -> tuple[int, ...]:
        """Return the batch sizes at a length; InputError where ``tokens`` is no multiple of it."""
        if self.tokens is None:
            return self.batches or (1,)
        if self.tokens % length:
            raise InputError(
                f"suite {self.name}: tokens = {self.tokens} is not a multiple of length {length}"
            )
        return (self.tokens // length,)


def load_suite(path: Path) -> Suite:
    """Load the suite in a file; InputError names file, key, value and what is allowed."""
    text = read_text(path, "a suite's .toml file")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    for variant in _tables(data.get("variants")):
        if isinstance(variant.get("model_from"), str):
            variant["model_from"] = placed_target(variant["model_from"], path.parent)
    return validated(Suite, data, where=str(path))


def _tables(value: Any) -> list[dict[str, Any]]:
    """Return the tables in what is to be a table of tables; what isn't one is said later."""
    tables = value.values() if isinstance(value, dict) else ()
    return [table for table in tables if isinstance(table, dict)]


def suite_folder() -> Path:
    """Return where the suites that come with the package are: in the wheel, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_suites"
    return shipped if shipped.is_dir() else package.parent / "suites"


def suite_names() -> list[str]:
    """Return the names of the suites of the package, read from the files' names alone."""
    return sorted(path.stem for path in suite_folder().glob("*.toml"))


def shipped_suites() -> list[Suite]:
    """Return every suite that comes with the package, by name."""
    return [load_suite(path) for path in sorted(suite_folder().glob("*.toml"))]


def parts_of(suite: Suite) -> list[Suite]:
    """Return the suites that a suite includes, in its order; itself where it includes none.

    Raises InputError where one doesn't exist or includes others itself.
    """
    if not suite.includes:
        return [suite]
    parts = [find_suite(name) for name in suite.includes]
    for part in parts:
        if part.includes:
            raise InputError(
                f"suite {suite.name}: includes {part.name!r}, which includes others itself: "
                "name those instead"
            )
    return parts


def find_suite(name: str) -> Suite:
    """Find a suite by its name, or in the user's own file when ``name`` is a path.

    Raises InputError with the names there are.
    """
    if name.endswith(".toml") or "/" in name:
        return load_suite(Path(name))
    path = suite_folder() / f"{name}.toml"
    if path.is_file():
        return load_suite(path)
    names = suite_names()
    raise InputError(
        f"--suite: there is no suite {name!r}{did_you_mean(name, names)} "
        f"(allowed: {', '.join(names)}, or a path to a .toml file)"
    )
