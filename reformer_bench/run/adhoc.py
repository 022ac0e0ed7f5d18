"""Ad hoc suites, which the command line describes in place of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reformer_bench.run import overrides
from reformer_bench.run.expand import expand
from reformer_bench.spec.case import Case
from reformer_bench.spec.errors import InputError, did_you_mean, validated
from reformer_bench.spec.model import PRESETS
from reformer_bench.spec.suite import DeviceKind, Suite, Variant
from reformer_bench.spec.units import parse_lengths

_LEAST_MAX_LENGTH = 65_536


def adhoc_suite(
    presets: Iterable[str],
    *,
    seq_len: str,
    batch: int,
    workload: str,
    optimizer: str,
    dtype: str | None,
    settings: Sequence[str],
    name: str = "ad-hoc",
) -> Suite:
    """Make a suite of presets, changed as by ``--set``; InputError names option and
    value.

    ``max_length`` is the longest length, at least 65,536, unless it is set.
    """
    lengths = _lengths(seq_len)
    model: dict[str, Any] = {"max_length": max(_LEAST_MAX_LENGTH, *lengths)}
    if dtype is not None:
        model["dtype"] = dtype
    suite = validated(
        Suite,
        {
            "name": name,
            "description": "from the command line",
            "lengths": lengths,
            "batches": [batch],
            "workloads": [workload],
            "optimizer": optimizer,
            "model": model,
            "variants": {preset: _variant(preset) for preset in presets},
        },
        where="options",
    )
    return overrides.with_settings(suite, settings)


def adhoc_cases(suite: Suite, kind: DeviceKind) -> list[Case]:
    """Return the cases of such a suite, variant by variant."""
    cases = expand(suite, kind)
    order = list(suite.variants)
    return sorted(cases, key=lambda case: (order.index(case.variant), case.length))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise InputError(f"--seq-len: {error}") from None


def _variant(preset: str) -> dict[str, Any]:
    if preset not in PRESETS:
        raise InputError(
            f"--preset: {preset!r} is not a preset{did_you_mean(preset, [*PRESETS, 'all'])} "
            f"(allowed: {', '.join(PRESETS)}, or all)"
        )
    return Variant(preset=preset).model_dump(mode="json", exclude_unset=True)


def preset_names(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the presets asked for; ``all`` stands for every one."""
    return tuple(PRESETS) if "all" in asked else tuple(dict.fromkeys(asked))
