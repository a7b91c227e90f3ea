"""What the broker's event loop spends on what: least squares over phases of different mixtures.

A phase says how much of each kind there was and what the loop spent. There are as many kinds as phases or more, so
each cost is also held, weakly, to a prior: where the phases say nothing the prior stays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

WEIGHT: Final = 0.05
"""Of the prior, against phases that count as 1 each."""
POINTS: Final = 100
LEAST_SHARE: Final = 0.3
"""Nothing in the first bucket is faster than this share of its bound."""


def fitted(phases: Sequence[tuple[Mapping[str, float], float]], prior: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each kind of the prior, none negative, from phases of (how many of each kind, seconds spent)."""
    kinds = list(prior)
    rows, wanted = [], []
    for counts, spent_s in phases:
        rows.append([counts.get(kind, 0.0) / spent_s for kind in kinds])
        wanted.append(1.0)
    for index, kind in enumerate(kinds):
        rows.append([WEIGHT / prior[kind] if other == index else 0.0 for other in range(len(kinds))])
        wanted.append(WEIGHT)
    found, _ = nnls(np.asarray(rows), np.asarray(wanted))
    return dict(zip(kinds, map(float, found), strict=True))


def quantiles_of_buckets(buckets: Mapping[float, float], total_s: float) -> npt.NDArray[np.float64]:
    """Quantiles at `POINTS` equal steps of what a cumulative histogram holds, with the mean that its sum says.

    Inside a bucket the logarithm is taken to be even; the last bucket that has no bound ends at twice its beginning.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]]
    edges, shares = [bounds[0] * LEAST_SHARE], [0.0]
    for low, high in zip([edges[0], *bounds], bounds, strict=False):
        edges.append(2 * low if math.isinf(high) else high)
        shares.append(buckets[high] / count)
    steps = np.linspace(0.0, 1.0, POINTS + 1)
    first = next(index for index, share in enumerate(shares) if share > 0)
    last = next(index for index, share in enumerate(shares) if share >= 1)
    kept = slice(first - 1, last + 1)
    values = np.exp(np.interp(steps, shares[kept], np.log(edges[kept])))
    mean = float(np.trapezoid(values, dx=1 / POINTS))
    return values * (total_s / count / mean)
