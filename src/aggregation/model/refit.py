"""Refit: the fit again with other weights of ratings, many side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aggregation.model.multistart import Settings
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ratings, check_weights

REPLICATES = 8
"""Refits that are solved side by side."""


@dataclass(frozen=True)
class Refits:
    """R refits with other weights; all arrays end in [R]."""

    parameters: Parameters
    objective: np.ndarray
    kkt_residual: np.ndarray
    converged: np.ndarray
    """bool [R]"""


def refit(
    ratings: Ratings,
    weights: np.ndarray,
    near: Parameters,
    penalty: Penalty | None = None,
    settings: Settings | None = None,
) -> Refits:
    """Fit again with other weights of the ratings, [n, R], starting from `near`: R refits.

    For bootstrap samples and population weights; to weigh users, give each of their ratings the
    user's weight (`user_weights[ratings.user]`). A row whose ratings all weigh 0 gets zeros. Each
    refit is the minimum that `near` leads to, with the axes of `near`; no other start is tried.
    """
    penalty, settings = penalty or Penalty(), settings or Settings()
    ratings.check()
    check_weights(weights, len(ratings))
    from aggregation.model.alternating import Sweeper

    parts = []
    for at in range(0, weights.shape[1], REPLICATES):
        here = weights[:, at : at + REPLICATES]
        size = here.shape[1]
        here = np.pad(here, ((0, 0), (0, REPLICATES - size)), mode="edge")
        start = Parameters(
            *(np.repeat(np.asarray(x)[..., None], REPLICATES, axis=-1) for x in near.arrays())
        )
        sweeper = Sweeper(ratings, penalty, weights=here)
        ends = sweeper.sweep(start, settings.tolerance, settings.max_sweeps)
        parts.append((size, ends))
    arrays = zip(*(ends.parameters.arrays() for _, ends in parts), strict=True)
    sizes = [size for size, _ in parts]

    def joined(values: tuple[np.ndarray, ...]) -> np.ndarray:
        cut = [x[..., :size] for x, size in zip(values, sizes, strict=True)]
        return np.concatenate(cut, axis=-1)

    residual = joined(tuple(ends.residual for _, ends in parts))
    return Refits(
        Parameters(*(joined(x) for x in arrays)),
        joined(tuple(ends.objective for _, ends in parts)),
        residual,
        residual <= settings.tolerance,
    )
