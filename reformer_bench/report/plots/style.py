"""How plots look: one colour and marker for each variant, fonts, inks, reproducible files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal
from zlib import crc32

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.textpath import TextPath

INK = "#222222"
MUTED = "#666666"
GRID = "#ececec"

FONT_SIZE = 10.0
SMALL = 9.0
TITLE_SIZE = 13.0
DPI = 160


@dataclass(frozen=True)
class Look:
    """How one variant is drawn wherever it appears."""

    colour: str
    marker: str
    dashes: Literal["-", "-."] = "-"

    @property
    def ink(self) -> str:
        """The colour darkened for text, which is thinner than a line and needs more contrast."""
        return _mixed(self.colour, "#000000", 0.18)

    @property
    def size(self) -> float:
        """The marker's size in points: all look equally large."""
        return {"*": 9.5, "D": 5.2, "s": 5.6}.get(self.marker, 6.2)


# The colours of Okabe and Ito, which stay apart under the common colour-blindnesses; yellow is left
# out, which white paper swallows. Markers differ too, for print in grey.
BLACK, ORANGE, SKY, GREEN = "#3c3c3c", "#e69f00", "#56b4e9", "#009e73"
BLUE, VERMILLION, PINK = "#0072b2", "#d55e00", "#cc79a7"
_COLOURS = (PINK, BLUE, ORANGE, GREEN, VERMILLION, SKY, BLACK)

NAMED = {
    # Table 3, and what people use today.
    "transformer": Look(BLACK, "o"),
    "reversible-transformer": Look(SKY, "s"),
    "chunked-reversible-transformer": Look(BLUE, "D"),
    "lsh-transformer": Look(ORANGE, "^"),
    "reformer": Look(VERMILLION, "*"),
    "flash-transformer": Look(GREEN, "v"),
    # Kinds of attention, as those models have them.
    "full": Look(BLACK, "o"),
    "memory-efficient": Look(BLUE, "s"),
    "sdpa": Look(GREEN, "v"),
    "local": Look(PINK, "D"),
    "lsh": Look(VERMILLION, "*"),
    "mixed": Look(SKY, "p"),
    # What a stack keeps, what a feed-forward layer does at once, where parameters wait.
    "standard": Look(BLACK, "o"),
    "checkpointed": Look(ORANGE, "^"),
    "reversible": Look(SKY, "s"),
    "whole": Look(BLACK, "o"),
    "chunked": Look(BLUE, "D"),
    "resident": Look(BLACK, "o"),
    "swapped": Look(PINK, "p"),
    "rounds": Look(VERMILLION, "*"),
    "small": Look(PINK, "d"),
    "paper": Look(GREEN, "<"),
    "error of the output": Look(BLACK, "o"),
    # Other people's models, and ours made to see what they see.
    "reformer-as-peers": Look(ORANGE, "h"),
    "reformer-pytorch": Look(BLUE, "s"),
    "transformers": Look(PINK, "p"),
}
# No cross, no triangle to the right: those say where a variant stopped.
_SPARE_MARKERS = ("D", "p", "s", "v", "h", "^", "d", "<")
_DARKER = 0.35
_SHADES = (-0.45, 0.0, _DARKER, 0.6)
"""From lighter to darker: how much of white or black is mixed in as a number doubles."""


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each name, which follows from the name alone.

    A name that begins with a known one has its colour, in a shade and with a marker of its own.
    Of two other names that would be alike the later one takes the next colour or marker.
    """
    wanted = tuple(dict.fromkeys(names))
    known = {name: NAMED.get(name) or _derived(name) for name in wanted}
    # What has its own look keeps it, wherever it stands among the others.
    taken = [look for look in known.values() if look is not None]
    found: dict[str, Look] = {}
    for name in wanted:
        look = known[name]
        if look is None:
            look = _spare(name, taken)
            taken.append(look)
        found[name] = look
    return found


def _derived(name: str) -> Look | None:
    parts = name.split("-")
    for n in range(len(parts) - 1, 0, -1):
        base = NAMED.get("-".join(parts[:n]))
        if base is not None:
            return _variation(base, "-".join(parts[n:]))
    return None


def _variation(base: Look, rest: str) -> Look:
    number = re.fullmatch(r"(?:.*-)?(\d+)", rest)
    turn = int(number[1]).bit_length() - 1 if number else crc32(rest.encode())
    amount = _SHADES[turn % len(_SHADES)] if number else _DARKER
    colour = _mixed(base.colour, "#ffffff" if amount < 0 else "#000000", abs(amount))
    marker = _SPARE_MARKERS[turn % len(_SPARE_MARKERS)]
    return replace(base, colour=colour, marker=marker, dashes="-" if number else "-.")


def _spare(name: str, taken: Iterable[Look]) -> Look:
    """Return the first of all looks, from a place that the name decides, that has the least in
    common with those taken.
    """
    start, pairs = crc32(name.encode()), list(product(_SPARE_MARKERS, _COLOURS))
    turned = [pairs[(start + turn) % len(pairs)] for turn in range(len(pairs))]
    taken = list(taken)

    def in_common(pair: tuple[str, str]) -> tuple[int, int, int]:
        marker, colour = pair
        both = sum((other.marker, other.colour) == pair for other in taken)
        return both, sum(o.colour == colour for o in taken), sum(o.marker == marker for o in taken)

    marker, colour = min(turned, key=in_common)
    return Look(colour, marker)


def _mixed(colour: str, other: str, share: float) -> str:
    (r, g, b), (other_r, other_g, other_b) = to_rgb(colour), to_rgb(other)
    keep = 1 - share
    mixed = (keep * r + share * other_r, keep * g + share * other_g, keep * b + share * other_b)
    return str(to_hex(mixed))


def text_inches(text: str, size: float) -> float:
    """How wide a line of text is."""
    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72 if text else 0.0


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's own defaults and this style's on top, whatever the user's settings are."""
    # All but the backend, which is process-wide; figures here have canvases of their own.
    defaults: dict[Any, Any] = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if not name.startswith("backend")
    }
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",  # travels with matplotlib, so text has one size everywhere
        "font.size": FONT_SIZE,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.borderaxespad": 0,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "svg.hashsalt": "reformer-bench",
    }
    with matplotlib.rc_context({**defaults, **style}):
        yield


def metadata(file_format: str) -> dict[str, Any]:
    """File metadata without dates, so that equal input gives equal bytes."""
    fields: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": "reformer-bench"},
        "pdf": {"CreationDate": None, "Creator": "reformer-bench", "Producer": None},
        "png": {"Software": "reformer-bench"},
    }
    return fields[file_format]
