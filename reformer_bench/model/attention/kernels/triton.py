"""The kernel of fused Triton programs: one launch for all heads and rounds, no sorted copies, no
scores.

B batch, L length, G heads of one group, N = B·G sequences, R rounds, S slots of a round, P = B·L·G
rows, D head width, c packed features of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer_bench.model.attention.common import (
    KEY_EPSILON,
    SELF_PENALTY,
    AttentionSettings,
)
from reformer_bench.model.attention.kernels.rounds import Rounds, sees_only_itself
from reformer_bench.model.attention.plan import (
    EMPTY_SLOT,
    NO_SLOT,
    PADDING_TOKEN,
    ChunkPlan,
)
from reformer_bench.model.programs import launch

_LEAST_TILE = 16
_PROGRAMS = f"{__package__}.triton_programs"
_FORWARD_PRODUCTS = 2
"""The products are the scores, and theirs with the values."""
_QUERY_PRODUCTS = 3
"""The products are the scores again, their gradients, and the queries'."""
_KEY_PRODUCTS = 4
"""The products are the scores again, their gradients, the values' and the keys'."""
ROWS = 16
"""How many rows a program takes that works on rows one by one."""
SLOTS = 1024
"""How many slots a program takes that unpacks the sorted order."""
WARPS_OF_ROWS = 4
"""How many warps a program of rows or slots has."""
_LARGEST_TILE_OF_DIRECTIONS = 32


def why_not_fused(settings: AttentionSettings, dtype: torch.dtype) -> str | None:
    """Name the setting that the fused programs don't cover; None when they cover all."""
    if dtype is torch.float64:
        return "dtype = 'float64'"
    for name, size in (("chunk_length", settings.chunk_length), ("d_head", settings.d_head)):
        if size < _LEAST_TILE or size & (size - 1):
            return f"{name} = {size} (a power of two, at least {_LEAST_TILE}, is needed)"
    return None


@dataclass(frozen=True)
class Launch:
    """How the programs of attention are laid out: slots of a tile, and warps of a program."""

    tile: int
    n_warps: int

    @staticmethod
    def of(chunk_length: int, d_head: int, dtype: torch.dtype) -> Launch:
        """Return the shipped layout. Its programs keep at most 16 bytes a thread in memory, on any
        architecture from compute capability 8.0 on (``tests/model/attention/test_compiled.py``).
        """
        if dtype.itemsize == 2:
            return Launch(min(chunk_length, 32), 4)
        # Products of float32 in three of TF32 need twice the registers.
        return Launch(min(chunk_length, 32 if d_head <= 64 else 16), 8)


def rows_hashed(d_head: int, dtype: torch.dtype) -> int:
    """Return how many rows a program hashes: as many as its registers hold."""
    return 64 if dtype.itemsize == 2 or d_head <= 64 else 16


def precision(dtype: torch.dtype) -> str:
    """Return how products of float32 use tensor cores, by torch's own setting: as three products of
    TF32, which are as exact as float32, or as one.
    """
    if dtype is not torch.float32 or torch.get_float32_matmul_precision() == "highest":
        return "tf32x3"
    return "tf32"


@dataclass(frozen=True)
class TritonKernel:
    """A kernel whose programs own one tile of a chunk in one round; a launch is all of them.

    Programs write rows where they belong, so that no sorted copy and no score is ever in memory.
    Each round writes rows of its own, [R, P, …], which one more launch adds up.
    """

    def plan(
        self,
        qkv_BLGc: Tensor,
        rotations_GDRK: Tensor,
        factors: tuple[int, ...],
        settings: AttentionSettings,
        valid_BL: Tensor | None,
    ) -> ChunkPlan:
        """Return the sorted order of packed queries by their hashes: the keys (bucket, position) of
        all heads and rounds in one launch, one sort, and one launch that unpacks it.
        """
        batch, length, heads, width = qkv_BLGc.shape
        n, rounds = batch * heads, rotations_GDRK.shape[2]
        past, bits = math.prod(factors), max(1, (length - 1).bit_length())
        wide = (past + 1) << bits > 2**31
        qkv = qkv_BLGc.reshape(-1, width).contiguous()
        keys = qkv.new_empty(n, rounds, length, dtype=torch.int64 if wide else torch.int32)
        halves = tuple(factor // 2 for factor in factors)
        tile = min(_LARGEST_TILE_OF_DIRECTIONS, _power_of_two(max((*halves, _LEAST_TILE))))
        rows = rows_hashed(settings.d_head, qkv.dtype)
        launch(
            _PROGRAMS,
            "hash_rounds",
            (-(-length // rows), n),
            WARPS_OF_ROWS,
            qkv,
            rotations_GDRK.contiguous(),
            qkv if valid_BL is None else valid_BL.to(torch.uint8),
            keys,
            length,
            heads,
            rotations_GDRK.shape[3],
            past,
            POSITION_BITS=bits,
            D=settings.d_head,
            WIDTH=width,
            ROUNDS=rounds,
            HALVES=halves,
            TILE=tile,
            ROWS=rows,
            MASKED=valid_BL is not None,
            PRECISION=precision(qkv.dtype),
            flops=2 * n * length * settings.d_head * rounds * sum(halves),
        )
        c = settings.chunk_length
        n_slots = (1 + -(-length // c)) * c
        keys = keys.sort(dim=-1)[0]
        position = torch.empty(n, rounds, n_slots, dtype=torch.int32, device=qkv.device)
        code = torch.empty_like(position)
        launch(
            _PROGRAMS,
            "unpack_order",
            (-(-n_slots // SLOTS), n * rounds),
            WARPS_OF_ROWS,
            keys,
            position,
            code,
            length,
            n_slots,
            past,
            POSITION_BITS=bits,
            C=c,
            ROUNDS=rounds,
            RING=settings.ring,
            ACROSS=settings.attend_across_buckets,
            PADDING_CODE=PADDING_TOKEN,
            NO_SLOT=NO_SLOT,
            EMPTY_SLOT=EMPTY_SLOT,
            BLOCK=SLOTS,
        )
        return ChunkPlan(position, code, c, length)

    def forward(self, rounds: Rounds) -> tuple[Tensor, Tensor]:
        """Return the output [B, L, G, D] and the log-normaliser [P] float32 over all rounds."""
        qkv, d = rounds.qkv_Pc, rounds.settings.d_head
        n_rows, n_rounds = qkv.shape[0], rounds.plan.n_rounds
        outs = qkv.new_empty(n_rounds, n_rows, d)
        normalisers = qkv.new_empty(n_rounds, n_rows, dtype=torch.float32)
        _attend("attend", rounds, _FORWARD_PRODUCTS, outs, normalisers)
        if n_rounds == 1:
            out, normaliser = outs[0], normalisers[0]
        else:
            out = torch.empty_like(outs[0])
            normaliser = torch.empty_like(normalisers[0])
            _by_rows("combine", n_rows, outs, normalisers, out, normaliser, D=d, ROUNDS=n_rounds)
        weights = self._lone_weights(rounds, normaliser)
        if weights is not None:
            out.mul_(weights[:, None])
        return out.view(rounds.batch, rounds.plan.length, rounds.heads, d), normaliser

    def backward(
        self, rounds: Rounds, dout_PD: Tensor, out_PD: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Return the gradient of the packed rows; the normaliser is [P]."""
        qkv, settings = rounds.qkv_Pc, rounds.settings
        n_rows, d, n_rounds = qkv.shape[0], settings.d_head, rounds.plan.n_rounds
        # Programs count on rows without gaps, and a gradient may be one number expanded.
        dout_PD, out_PD = dout_PD.contiguous(), out_PD.contiguous()
        along = torch.empty_like(normaliser)
        share, reached = along, normaliser
        if settings.shared_qk:
            share, reached = torch.empty_like(along), torch.empty_like(normaliser)
        factor = qkv.new_empty(n_rows if settings.shared_qk else 0, dtype=torch.float32)
        _by_rows(
            "along_outputs",
            n_rows,
            dout_PD,
            out_PD,
            normaliser,
            qkv,
            along,
            reached,
            share,
            factor,
            D=d,
            WIDTH=qkv.shape[1],
            SHARED=settings.shared_qk,
            KEY_EPSILON=KEY_EPSILON,
            ALONE=-SELF_PENALTY / 2,
        )
        weights = self._lone_weights(rounds, normaliser) if settings.shared_qk else None
        if weights is not None:
            share.mul_(weights)
        given = (dout_PD, along, reached)
        of_queries = qkv.new_empty(n_rounds, n_rows, d)
        of_keys = qkv.new_empty(n_rounds, n_rows, 2 * d)
        _attend("attend_queries", rounds, _QUERY_PRODUCTS, *given, of_queries, factor=factor)
        _attend("attend_keys", rounds, _KEY_PRODUCTS, *given, of_keys, factor=factor)
        dqkv = torch.empty_like(qkv)
        tensors = (of_queries, of_keys, qkv, factor, dout_PD, share, dqkv)
        _by_rows(
            "sum_rounds",
            n_rows,
            *tensors,
            D=d,
            WIDTH=qkv.shape[1],
            ROUNDS=n_rounds,
            SHARED=settings.shared_qk,
        )
        return dqkv

    def _lone_weights(self, rounds: Rounds, normaliser: Tensor) -> Tensor | None:
        """Return what the values of tokens that see only themselves are multiplied by, [P]."""
        if not rounds.settings.round_lone_tokens:
            return None
        shape = (rounds.batch, rounds.plan.length, rounds.heads)
        normaliser_NL = normaliser.view(shape).transpose(1, 2).reshape(rounds.n_sequences, -1)
        weights_NL = rounds.self_weights(sees_only_itself(normaliser_NL))
        return None if weights_NL is None else rounds.by_row(weights_NL)


def _attend(
    program: str, rounds: Rounds, products: int, *tensors: Tensor, factor: Tensor | None = None
) -> Tensor:
    """Run a program of attention on every tile, and return what makes shared queries keys, [P]."""
    qkv, plan, settings = rounds.qkv_Pc, rounds.plan, rounds.settings
    d, c = settings.d_head, plan.chunk_length
    if factor is None:
        factor = qkv.new_empty(len(qkv) if settings.shared_qk else 0, dtype=torch.float32)
        if settings.shared_qk:
            _by_rows(
                "inverse_lengths",
                len(qkv),
                qkv,
                factor,
                D=d,
                WIDTH=qkv.shape[1],
                KEY_EPSILON=KEY_EPSILON,
            )
    position, code = plan.position_NRS.to(torch.int32), plan.code_NRS
    once = rounds.bias.chunk_and_code_NRL
    chunk_of, code_of = (code, code) if once is None else (x.to(torch.int32) for x in once)
    # Each chunk's C queries meet the 2 C keys of its own chunk and the one before.
    n_programs = rounds.n_sequences * plan.n_rounds * plan.n_chunks
    layout = Launch.of(c, d, qkv.dtype)
    # Each round reads its rows in an order of its own; chunks that share some run side by side.
    moved = sum(
        x.nbytes * (plan.n_rounds if len(x) == len(qkv) else 1)
        for x in (qkv, factor, position, code, *tensors, *(once or ()))
    )
    launch(
        _PROGRAMS,
        program,
        (plan.n_chunks * (c // layout.tile), rounds.n_sequences, plan.n_rounds),
        layout.n_warps,
        qkv,
        factor,
        position.contiguous(),
        code.contiguous(),
        chunk_of.contiguous(),
        code_of.contiguous(),
        *tensors,
        position.shape[-1],
        len(qkv),
        plan.length,
        rounds.heads,
        settings.scale,
        C=c,
        T=layout.tile,
        D=d,
        WIDTH=qkv.shape[1],
        ROUNDS=plan.n_rounds,
        CAUSAL=settings.causal,
        SHARED=settings.shared_qk,
        BY_SLOT=settings.slots_decide,
        ONCE=once is not None,
        RING=settings.ring,
        ACROSS=settings.attend_across_buckets or settings.local,
        SELF_PENALTY=SELF_PENALTY,
        EMPTY_SLOT=EMPTY_SLOT,
        PRECISION=precision(qkv.dtype),
        flops=products * 2 * n_programs * c * 2 * c * d,
        moved_bytes=moved,
    )
    return factor


def _by_rows(program: str, n_rows: int, *tensors: Tensor, **constants: Any) -> None:
    """Run a program that takes rows one by one."""
    grid = (-(-n_rows // ROWS),)
    arguments = (*tensors, n_rows)
    launch(_PROGRAMS, program, grid, WARPS_OF_ROWS, *arguments, ROWS=ROWS, **constants)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
