"""How rows are cut into pieces, so that temporaries stay small beside what must be held."""

from __future__ import annotations

from collections.abc import Iterator

_PIECE_BYTES = 8 * 2**20
_MOST_PIECES = 16


def even_pieces(n_rows: int, n_pieces: int) -> Iterator[slice]:
    """Return ``n_pieces`` slices (fewer if there are fewer rows) that cover the rows in order."""
    size = -(-n_rows // min(n_pieces, n_rows))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def small_pieces(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Return slices of about 8 MiB, at most 16 of them.

    The bound keeps the number of operators from growing with length; a piece is then a sixteenth of
    a tensor that is there anyway.
    """
    wanted = -(-n_rows * row_bytes // _PIECE_BYTES)
    return even_pieces(n_rows, max(1, min(wanted, _MOST_PIECES)))
