"""Refit: the fit again with other weights, many side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from aggregation.data.settings import check_fields
from aggregation.errors import InputError
from aggregation.model.multistart import Settings
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ratings, check_weights

REPLICATES_PER_BATCH = 8
"""Refits that are solved side by side."""

BATCHES_AT_ONCE = 2
"""Batches that are solved in threads of their own; each needs memory."""


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
    near: Parameters | Sequence[Parameters],
    penalty: Penalty | None = None,
    settings: Settings | None = None,
) -> Refits:
    """Fit again with other weights, starting from `near`: R refits.

    `weights`: at least 0, [n, R] of the ratings, or [U, R] of the users, whose weight each of
    their ratings takes (where n = U, of the ratings). They replace `Ratings.weight`. For bootstrap
    samples and population weights. `near`: parameters of a fit to the same users and guidelines, or
    R of them, one for each refit. Of `settings` only `tolerance` and `max_sweeps` count.

    Each refit is the minimum that `near` leads to, with the axes of `near`; no other start is
    tried. A row whose ratings all weigh 0 gets zeros. Raises InputError for shapes that do not fit
    and for numbers that are not finite.
    """
    penalty, settings = penalty or Penalty(), settings or Settings()
    check_fields(penalty)
    check_fields(settings)
    ratings.check()
    weights = np.asarray(weights, np.float64)
    if (
        weights.ndim != 2
        or not weights.shape[1]
        or len(weights) not in (len(ratings), ratings.n_users)
    ):
        raise InputError(
            f"weights have shape {weights.shape}: give [{len(ratings)}, R] for the ratings, or "
            f"[{ratings.n_users}, R] for the users, with R at least 1"
        )
    from aggregation.model.alternating import Sweeper

    of_users, r = len(weights) != len(ratings), weights.shape[1]
    starts = [near] if isinstance(near, Parameters) else list(near)
    if len(starts) not in (1, r):
        raise InputError(f"near holds {len(starts)} parameters: give one, or {r} as of the weights")
    for start in starts:
        start.check("near", ratings, unknown=False)

    def solved(at: int) -> list[np.ndarray]:
        """One batch of refits."""
        of = np.minimum(np.arange(at, at + REPLICATES_PER_BATCH), r - 1)
        batch = weights[:, of]
        batch = batch[ratings.user] if of_users else batch
        check_weights(batch)
        sweeper = Sweeper(ratings, penalty, weights=batch)
        arrays = (starts[k % len(starts)].arrays() for k in of)
        start = Parameters(*(np.stack(x, axis=-1) for x in zip(*arrays, strict=True)))
        ends = sweeper.sweep(start, settings.tolerance, settings.max_sweeps)
        return [*ends.parameters.arrays(), ends.objective, ends.residual]

    first, *more = range(0, r, REPLICATES_PER_BATCH)
    parts = [solved(first)]  # alone, so that it is compiled once
    with ThreadPoolExecutor(BATCHES_AT_ONCE) as pool:
        parts += pool.map(solved, more)
    *arrays, objective, residual = (
        np.concatenate(part, axis=-1)[..., :r] for part in zip(*parts, strict=True)
    )
    return Refits(Parameters(*arrays), objective, residual, residual <= settings.tolerance)
