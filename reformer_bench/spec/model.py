"""ModelConfig: one frozen description of a model, every memory technique a switch."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from reformer_bench.spec.errors import did_you_mean


class Attention(StrEnum):
    """How a layer attends."""

    FULL = "full"
    MEMORY_EFFICIENT = "memory_efficient"
    SDPA = "sdpa"
    LOCAL = "local"
    LSH = "lsh"


class Residual(StrEnum):
    """What a layer keeps for the backward pass."""

    STANDARD = "standard"
    CHECKPOINTED = "checkpointed"
    REVERSIBLE = "reversible"


class Positions(StrEnum):
    """How a position enters the model."""

    AXIAL = "axial"
    LEARNED = "learned"
    NONE = "none"


class LshKernel(StrEnum):
    """Who computes attention inside the chunks."""

    AUTO = "auto"
    EAGER = "eager"
    FLASH_CPU = "flash_cpu"
    TRITON = "triton"


def _as_tuple(value: Any) -> Any:
    """One name is a pattern of one; a comma-separated line is a pattern as well."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value


PositiveInt = Annotated[int, Field(ge=1)]
Factors = Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]


class ModelConfig(BaseModel):
    """A model, by its switches. Frozen; a wrong value or combination names its field.

    Lengths count tokens, widths count features. Source of the switches: Kitaev et al. 2020,
    sections 2 to 4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    vocab_size: PositiveInt = 256
    d_model: PositiveInt = 256
    n_layers: PositiveInt = 2
    n_heads: PositiveInt = 4
    d_head: PositiveInt | None = None
    """Width of one head; None: d_model / n_heads."""
    d_ff: PositiveInt = 1024
    activation: Literal["gelu", "relu"] = "gelu"

    attention: Annotated[tuple[Attention, ...], BeforeValidator(_as_tuple)] = (Attention.LSH,)
    """One kind, or a pattern repeated over the layers."""
    causal: bool = True
    shared_qk: bool = False
    """Queries and keys from one projection, in the layers whose kind leaves the choice open;
    LSH layers always share them."""
    shared_qk_scale: Literal["none", "sqrt"] = "none"
    """Whether shared-QK scores are divided by √d_head as well (reformer-pytorch does, the authors'
    code does not)."""
    head_groups: PositiveInt | None = None
    """Into how many groups the heads are split, each run on its own; None: one head a group."""

    chunk_length: PositiveInt = 64
    """LSH: tokens in a chunk of the sorted order."""
    local_chunk_length: PositiveInt = 64
    n_hashes: PositiveInt = 4
    n_buckets: PositiveInt | Factors | None = None
    """LSH buckets of a round: a number, its factors, or None: 2 · L / chunk_length."""
    attend_across_buckets: bool = False
    """Whether a chunk's queries also see keys of other buckets in reach."""
    count_duplicates: bool = True
    """True: a key found in several rounds counts in each (the released code's way). False: once
    (the paper's N_ij correction)."""
    look_back: Literal["paper", "ring"] = "paper"
    """What the first chunk of a round sees before it: nothing, or the last chunk of the round
    before (the released code's way)."""
    lone_tokens: Literal["exact", "rounded"] = "exact"
    """LSH: what a token gets that no round gives a target but itself: its value; or its value times
    weights rounded at the size of the self penalty, as in transformers (0.4% off in float32)."""
    hash_seed: int | None = None
    """None: fresh rotations at each step and layer. A number: the same ones everywhere."""
    lsh_kernel: LshKernel = LshKernel.AUTO
    """Who computes attention inside chunks; auto: flash_cpu on the CPU; on CUDA triton where it
    covers the switches, else eager. The record says which."""

    residual: Residual = Residual.REVERSIBLE
    streams: Literal["fixed", "float"] = "fixed"
    """What a reversible stack's streams are: fixed-point numbers, which undo exactly, or floats,
    as in the paper, which drift."""
    merge_streams: Literal["concat", "mean"] = "concat"
    """What a reversible stack's two streams become at its end."""
    ff_chunks: PositiveInt = 1
    loss_chunks: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    parameter_offload: Literal["none", "cpu"] = "none"

    positions: Positions = Positions.AXIAL
    max_length: PositiveInt = 65_536
    """The longest sequence the model takes; sizes the tables of positions."""
    axial_shape: tuple[PositiveInt, PositiveInt] | None = None
    """Rows of the two axial tables; None: two near-equal factors that cover max_length."""
    axial_dims: tuple[PositiveInt, PositiveInt] | None = None
    """Widths of the two axial tables; None: a quarter and the rest of d_model."""

    norm_epsilon: Annotated[float, Field(gt=0.0)] = 1e-5
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """What sublayers compute in. Streams and parameters stay float32 under bfloat16."""

    @model_validator(mode="after")
    def _possible(self) -> ModelConfig:
        for check in (self._check_attention, self._check_widths, self._check_memory):
            check()
        return self

    def _check_attention(self) -> None:
        if not self.attention:
            raise ValueError("attention needs at least one kind")
        if Attention.SDPA in self.attention and self.shared_qk and not self.causal:
            raise ValueError(
                "attention = 'sdpa' with shared_qk = true needs causal = true: without it no fused "
                "kernel can leave a token itself out"
            )
        buckets = self.n_buckets
        if isinstance(buckets, int) and buckets != 1 and buckets % 2:
            raise ValueError(f"n_buckets = {buckets} must be even (angular hashing pairs ±x), or 1")
        if isinstance(buckets, tuple) and any(factor % 2 for factor in buckets):
            raise ValueError(f"n_buckets = {list(buckets)}: every factor must be even")
        if self.head_groups is not None and self.n_heads % self.head_groups:
            raise ValueError(
                f"head_groups = {self.head_groups} must divide n_heads = {self.n_heads}"
            )

    def _check_widths(self) -> None:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"n_heads = {self.n_heads} must divide d_model = {self.d_model}, "
                "or d_head must be given"
            )
        if self.positions is not Positions.AXIAL:
            for field in ("axial_shape", "axial_dims"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} needs positions = 'axial'")
            return
        if self.d_model < 2:
            raise ValueError("positions = 'axial' needs d_model ≥ 2")
        if self.axial_dims is not None and sum(self.axial_dims) != self.d_model:
            raise ValueError(
                f"axial_dims = {list(self.axial_dims)} must add up to d_model = {self.d_model}"
            )
        if self.axial_shape is not None and math.prod(self.axial_shape) < self.max_length:
            raise ValueError(
                f"axial_shape = {list(self.axial_shape)} covers {math.prod(self.axial_shape)} "
                f"positions, fewer than max_length = {self.max_length}"
            )

    def _check_memory(self) -> None:
        if self.parameter_offload == "cpu" and self.residual is Residual.STANDARD:
            raise ValueError(
                "parameter_offload = 'cpu' needs residual = 'checkpointed' or 'reversible': a "
                "standard stack keeps every layer's parameters for its backward pass"
            )
        if self.residual is not Residual.REVERSIBLE and self.merge_streams != "concat":
            raise ValueError("merge_streams = 'mean' needs residual = 'reversible'")

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_head if self.d_head is not None else self.d_model // self.n_heads

    @property
    def output_width(self) -> int:
        """Width of what the last normalisation sees: both streams side by side, or one."""
        concat = self.residual is Residual.REVERSIBLE and self.merge_streams == "concat"
        return 2 * self.d_model if concat else self.d_model

    def kind(self, layer: int) -> Attention:
        """The attention of a layer, counted from 0."""
        return self.attention[layer % len(self.attention)]

    def shares_qk(self, layer: int) -> bool:
        """Whether a layer's queries and keys come from one projection."""
        return self.shared_qk or self.kind(layer) is Attention.LSH

    def position_tables(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((rows, width), (rows, width)) of the axial tables."""
        shape = self.axial_shape
        if shape is None:
            # Powers of two, so that a longer max_length only adds rows.
            rows = 2 ** math.ceil(math.log2(self.max_length) / 2)
            shape = (max(1, math.ceil(self.max_length / rows)), rows)
        if self.axial_dims is not None:
            widths = self.axial_dims
        else:
            first = max(1, self.d_model // 4)
            widths = (first, self.d_model - first)
        return (shape[0], widths[0]), (shape[1], widths[1])


_FULL = {"attention": ("full",), "head_groups": 1}
_LEAN = {"residual": "reversible", "ff_chunks": 16, "loss_chunks": 16}

PRESETS: dict[str, dict[str, Any]] = {
    # Table 3 of the paper, row by row; full attention holds all heads' scores at once, as there.
    "transformer": {**_FULL, "residual": "standard"},
    "reversible-transformer": {**_FULL, "residual": "reversible"},
    "chunked-reversible-transformer": {**_FULL, **_LEAN},
    "lsh-transformer": {"attention": ("lsh",), "residual": "standard"},
    "reformer": {"attention": ("lsh",), **_LEAN},
    # Not in the paper: what people use today.
    "flash-transformer": {"attention": ("sdpa",), "head_groups": 1, "residual": "standard"},
}
"""The switches each named model sets; every other field keeps its value."""


def preset(name: str, **fields: Any) -> ModelConfig:
    """The model of that name, with fields of your own on top.

    Raises ValueError with the names there are.
    """
    if name not in PRESETS:
        raise ValueError(
            f"{name!r} is not a preset{did_you_mean(name, PRESETS)} (allowed: {', '.join(PRESETS)})"
        )
    return ModelConfig(**{**PRESETS[name], **fields})
