"""How plots look: one colour, marker and dash for each variant, fonts, inks, reproducible files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib

INK = "#222222"
MUTED = "#666666"
FAINT = "#c4c4c4"
GRID = "#ececec"

FONT_SIZE = 10.0
SMALL = 9.0
TITLE_SIZE = 13.0


@dataclass(frozen=True)
class Look:
    """How one variant is drawn wherever it appears."""

    colour: str
    marker: str
    dashes: Literal["-", "-."] = "-"

    @property
    def ink(self) -> str:
        """The colour darkened for text, which is thinner than a line and needs more contrast."""
        channels = [int(self.colour[start : start + 2], 16) for start in (1, 3, 5)]
        return "#" + "".join(f"{round(0.82 * channel):02x}" for channel in channels)


# After Okabe and Ito, whose colours stay apart under the common colour-blindnesses; yellow is left
# out, which white paper swallows. Markers differ too, for print in grey.
_KNOWN = {
    "transformer": Look("#3c3c3c", "o"),
    "reversible-transformer": Look("#4aa3df", "s"),
    "chunked-reversible-transformer": Look("#0060a8", "D"),
    "lsh-transformer": Look("#e69000", "^"),
    "reformer": Look("#d0440c", "o"),
    "flash-transformer": Look("#009e73", "v"),
}
_SPARE_COLOURS = ("#c05c9e", "#7a5230", "#6a51a3", "#7f9a00", "#4aa3df", "#e69000", "#009e73")
# No cross, no triangle to the right, no open square: those say where a variant stopped.
_SPARE_MARKERS = ("D", "p", "s", "v", "h", "^", "d", "<")


def looks(variants: Iterable[str]) -> dict[str, Look]:
    """A look for each variant: always the same for the models of Table 3, else by turn."""
    found: dict[str, Look] = {}
    turn = 0
    for variant in dict.fromkeys(variants):
        if variant in _KNOWN:
            found[variant] = _KNOWN[variant]
            continue
        colour = _SPARE_COLOURS[turn % len(_SPARE_COLOURS)]
        dashes: Literal["-", "-."] = "-" if turn < len(_SPARE_COLOURS) else "-."
        found[variant] = Look(colour, _SPARE_MARKERS[turn % len(_SPARE_MARKERS)], dashes)
        turn += 1
    return found


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
