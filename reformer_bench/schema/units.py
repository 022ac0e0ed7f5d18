"""Conversion of bytes, token counts and length lists between what people write and what
code holds.
"""

from __future__ import annotations

import re

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40

_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}


def parse_bytes(text: str | int) -> int:
    """Read bytes from text such as ``16GiB``, ``512 MiB``, ``1.5GB`` or a bare count of
    bytes.

    Raises ValueError with what was given and what is allowed.
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _BYTE_UNITS:
        raise ValueError(
            f"{text!r} is not a size: write a number and KiB, MiB, GiB, TiB (powers of 1024) "
            "or kB, MB, GB, TB (powers of 1000), for example 16GiB"
        )
    return int(float(match[1]) * _BYTE_UNITS[match[2].lower()])


def format_bytes(count: float | None) -> str:
    """Write bytes as people read them, in binary units with three figures: ``216.7 MiB``."""
    if count is None:
        return "–"
    for unit, size in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        # 1000 rather than 1024: "1016 MiB" reads worse than "0.99 GiB".
        if abs(count) >= 0.9765625 * size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count:.0f} B"


def format_tokens(count: int) -> str:
    """Write a sequence length as people read it: 512, 4K, 64K, 1M; exact counts stay exact."""
    for unit, size in (("M", MIB), ("K", KIB)):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 case``, ``29 cases``; ``plural`` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def parse_length(text: str) -> int:
    """Read a sequence length from ``4096``, ``4K`` or ``1M`` (K = 1024, M = 1024²)."""
    match = re.fullmatch(r"\s*(\d[\d_]*)\s*([kKmM]?)\s*", text)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"{text!r} is not a sequence length: write a positive whole number, K and M allowed "
            "(4096, 4K, 1M)"
        )
    return int(match[1]) * {"": 1, "k": KIB, "m": MIB}[match[2].lower()]


def parse_lengths(text: str) -> tuple[int, ...]:
    """Read sequence lengths from ``512,1024``, from ``512..65536`` (every doubling), or a mix of
    both.

    They come back sorted, each once. Raises ValueError with what was given and what is allowed.
    """
    lengths: set[int] = set()
    for item in text.split(","):
        first, dots, last = item.partition("..")
        if not dots:
            lengths.add(parse_length(first))
            continue
        low, high = parse_length(first), parse_length(last)
        if high < low:
            raise ValueError(f"{item.strip()!r} runs backwards: write the shorter length first")
        while low <= high:
            lengths.add(low)
            low *= 2
    return tuple(sorted(lengths))
