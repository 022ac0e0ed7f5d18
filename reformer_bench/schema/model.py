"""ModelConfig: one frozen description of a model, every memory technique a switch."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from reformer_bench.schema.errors import did_you_mean


class Attention(StrEnum):
    """The kinds of attention."""

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
    """What computes attention inside the chunks."""

    AUTO = "auto"
    EAGER = "eager"
    FLASH_CPU = "flash_cpu"
    TRITON = "triton"


def _as_tuple(value: Any) -> Any:
    """Turn one name, or names separated by commas, into a pattern of names."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value


Dtype = Literal["float32", "bfloat16", "float64"]
PositiveInt = Annotated[int, Field(ge=1)]
Factors = Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]


class ModelConfig(BaseModel):
    """A model, described by its sizes and switches.

    A config is frozen, and is checked when it is made. Lengths count tokens, widths count features.
    The switches are those of Kitaev et al. 2020, sections 2 to 4.

    Raises:
        ValidationError: A ValueError from pydantic, for a value or a combination that is
            impossible; it names the field and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    vocab_size: PositiveInt = 256
    """How many different tokens there are."""
    d_model: PositiveInt = 256
    """Width of the activations between layers."""
    n_layers: PositiveInt = 2
    """How many layers there are, each of attention and feed-forward."""
    n_heads: PositiveInt = 4
    """How many heads attention has."""
    d_head: PositiveInt | None = None
    """Width of one head. None stands for d_model / n_heads."""
    d_ff: PositiveInt = 1024
    """Width inside the feed-forward layers."""
    activation: Literal["gelu", "relu"] = "gelu"
    """The function between the two products of a feed-forward layer."""

    attention: Annotated[tuple[Attention, ...], BeforeValidator(_as_tuple)] = (Attention.LSH,)
    """Kind of attention: one for all layers, or a pattern repeated over the layers."""
    causal: bool = True
    """Whether a token attends to earlier tokens only."""
    shared_qk: bool = False
    """Whether queries and keys come from one projection. LSH layers always share them; this decides
    for the other kinds."""
    shared_qk_scale: Literal["none", "sqrt"] = "none"
    """Whether scores of shared queries and keys are divided by √d_head too. reformer-pytorch does
    so, the authors' code doesn't."""
    head_groups: PositiveInt | None = None
    """How many groups the heads are split into; groups run one after another. None stands for a
    group for each head; on CUDA, where Triton runs, for as few as keep what rounds hold within a
    share of the streams."""

    chunk_length: PositiveInt = 64
    """LSH attention: how many tokens of the sorted order make a chunk."""
    local_chunk_length: PositiveInt = 64
    """Local attention: how many tokens make a chunk."""
    n_hashes: PositiveInt = 4
    """LSH attention: how many rounds of hashing there are."""
    n_buckets: PositiveInt | Factors | None = None
    """LSH attention: how many buckets a round has, as a number or as factors to be multiplied. None
    stands for 2 · length / chunk_length."""
    attend_across_buckets: bool = False
    """LSH attention: whether a query also sees the keys of other buckets in its chunk and the one
    before."""
    count_duplicates: bool = True
    """LSH attention: whether a key that is found in several rounds counts in each of them, as in
    the released code. Otherwise it counts once, by the paper's N_ij."""
    look_back: Literal["paper", "ring"] = "paper"
    """LSH attention: what the first chunk of a round sees before it. ``paper``: nothing; ``ring``:
    the last chunk of the round before, as in the released code."""
    lone_tokens: Literal["exact", "rounded"] = "exact"
    """LSH attention: what a token gets that sees only itself in every round. ``exact``: its value;
    ``rounded``: its value times rounded weights, as transformers has it (0.4% off in float32)."""
    hash_seed: int | None = None
    """Seed of the hash rotations, which are then the same in each step and layer. None draws new
    ones for each."""
    lsh_kernel: LshKernel = LshKernel.AUTO
    """What computes attention inside chunks. ``auto`` is flash_cpu on the CPU; on CUDA it is triton
    where that covers the switches, and eager elsewhere. The record says which."""

    residual: Residual = Residual.REVERSIBLE
    """What layers keep for the backward pass: everything, each layer's input, or nothing."""
    streams: Literal["fixed", "float"] = "fixed"
    """What the streams of a reversible model are: ``fixed``-point numbers, whose additions can be
    undone exactly, or floats as in the paper, which drift."""
    merge_streams: Literal["concat", "mean"] = "concat"
    """How the two streams of a reversible model become one at the end."""
    ff_chunks: PositiveInt = 1
    """How many pieces of the sequence a feed-forward layer works on, one after another; on CUDA,
    where Triton runs, at most: pieces finer than attention's own parts would save nothing."""
    loss_chunks: PositiveInt = 1
    """How many pieces of the sequence the logits and the loss are computed in; on CUDA at most, as
    for ``ff_chunks``."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that an activation is dropped after the embedding and after each sublayer."""
    parameter_offload: Literal["none", "cpu"] = "none"
    """Where the parameters of a layer wait while it isn't computing: on the device, or in CPU
    memory."""

    positions: Positions = Positions.AXIAL
    """How positions are embedded."""
    max_length: PositiveInt = 65_536
    """The longest sequence that the model takes; it sizes the tables of positions."""
    axial_shape: tuple[PositiveInt, PositiveInt] | None = None
    """Rows of the two axial tables. None stands for two nearly equal factors that cover
    max_length."""
    axial_dims: tuple[PositiveInt, PositiveInt] | None = None
    """Widths of the two axial tables. None stands for a quarter of d_model, and the rest."""

    norm_epsilon: Annotated[float, Field(gt=0.0)] = 1e-5
    """Epsilon of the layer normalisations."""
    dtype: Dtype = "float32"
    """What sublayers compute in. With bfloat16, streams and parameters stay float32."""

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
        """Return the kind of attention of a layer, counted from 0."""
        return self.attention[layer % len(self.attention)]

    def shares_qk(self, layer: int) -> bool:
        """Say whether a layer's queries and keys come from one projection."""
        return self.shared_qk or self.kind(layer) is Attention.LSH

    def position_tables(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return ((rows, width), (rows, width)) of the two axial tables."""
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
"""The switches that each named model sets; every other field has its default."""


def preset(name: str, **fields: Any) -> ModelConfig:
    """Return the config of a named model, changed by fields of your own.

    Args:
        name: A row of the paper's Table 3 (``transformer``, ``reversible-transformer``,
            ``chunked-reversible-transformer``, ``lsh-transformer``, ``reformer``), or
            ``flash-transformer``.
        **fields: Fields of ModelConfig, which win over the preset's.

    Returns:
        The config.

    Raises:
        ValueError: There is no preset of that name, or a field is impossible (see ModelConfig); the
            text names what is allowed.
    """
    if name not in PRESETS:
        raise ValueError(
            f"{name!r} is not a preset{did_you_mean(name, PRESETS)} (allowed: {', '.join(PRESETS)})"
        )
    return ModelConfig(**{**PRESETS[name], **fields})
