"""What the panels of the claims' figure are called, and what their curves are in other plots."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reformer_bench.report.style import Look, looks

TITLES = {
    "quadratic-full": "Full attention grows as L²",
    "linear-lsh": "LSH attention grows as L",
    "depth-free": "Reversible layers make depth free",
    "ff-chunks": "Chunks take d_ff out of the peak",
    "table-3": "Table 3: memory",
    "flat-speed": "At fixed tokens LSH time is flat",
    "more-hashes": "Hash rounds approach full attention",
    "deep-64k": "20 layers at 64K tokens",
    "swap-params": "Swapped parameters leave the device",
}
"""What a panel is called, in plain words, by its claim's id."""
_SUBJECTS = (
    (r"memory-efficient attention", "memory-efficient"),
    (r"full attention", "full"),
    (r"LSH attention", "lsh"),
    (r"(\d+) hash round", r"lsh-\1"),
    (r"reversible stack", "reversible"),
    (r"residual stack", "standard"),
    (r"without chunks", "whole"),
    (r"in chunks", "chunked"),
    (r"chunked reversible,", "chunked-reversible-transformer"),
    (r"reversible,", "reversible-transformer"),
    (r"transformer,", "transformer"),
    (r"LSH,", "lsh-transformer"),
    (r"reformer,", "reformer"),
    (r"layers at 64K", "small"),
    (r"swapping", "swapped"),
)
"""What an expectation is about, by the name that this has in the plots of runs."""


def looks_of(texts: Sequence[str]) -> dict[str, Look]:
    """The look of each expectation: its subject's in the plots of runs.

    Where memory and time of one subject stand together, the later one is a variation of it.
    """
    stems: dict[str, str] = {}
    for text in texts:
        matches = ((re.search(words, text), stem) for words, stem in _SUBJECTS)
        stem = next((match.expand(stem) for match, stem in matches if match), text)
        stems[text] = f"{stem}-time" if stem in stems.values() else stem
    found = looks(stems.values())
    return {text: found[stem] for text, stem in stems.items()}
