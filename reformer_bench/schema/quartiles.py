"""Order statistics of samples: the median, the quartiles and the spread between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quartiles:
    """The median and the quartiles of ``n`` samples, in the unit of the samples."""

    median: float
    lower: float
    upper: float
    n: int

    @property
    def iqr(self) -> float | None:
        """The interquartile range; None for a single sample, which has no spread."""
        return self.upper - self.lower if self.n > 1 else None

    @property
    def relative_iqr(self) -> float | None:
        """The interquartile range as a share of the median; None where there is none."""
        return self.iqr / self.median if self.iqr is not None and self.median > 0 else None


def quartiles(samples: Sequence[float]) -> Quartiles | None:
    """Return the quartiles by linear interpolation between order statistics; None without
    samples.
    """
    if not samples:
        return None
    lower, median, upper = np.percentile(np.asarray(samples, dtype=float), [25, 50, 75])
    return Quartiles(float(median), float(lower), float(upper), len(samples))
