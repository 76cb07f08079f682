"""Fit: exact alternating minimisation of the loss, from several starts, with a certificate.

With one side fixed, the loss falls apart into one small lasso for each row of the other side, and
each is solved exactly; `sweeps` does that. Here: where to start, which end to keep, and which way
its axes point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aggregation.model import Parameters, Penalty, loss
from aggregation.ratings import Ratings


@dataclass(frozen=True)
class Settings:
    """How to search. `tolerance` bounds the KKT residual (see `Fit`)."""

    dimensions: int = 1
    starts: int = 8
    tolerance: float = 1e-6
    max_sweeps: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """The lowest stationary point found, and how it was found."""

    parameters: Parameters
    """float64 NumPy arrays."""
    objective: float
    """The loss at `parameters`."""
    converged: bool
    """Whether `kkt_residual` <= the tolerance asked for."""
    kkt_residual: float
    """Largest distance of zero from the subgradient of the loss, over all coordinates, each
    divided by its row's share of the ratings: in units of rating error, 0 at a stationary point."""
    sweeps: int
    starts: tuple[float, ...]
    """The loss that each start ended at; with a prior, the warm start is the first."""
    best: int
    """Which start won."""
    history: np.ndarray
    """[sweeps, starts]: the loss of every start after each sweep."""
    warm_start: bool = False
    """Whether the first start is an earlier model."""

    def summary(self) -> pd.DataFrame:
        """One row per start: the loss it ended at, how far above the lowest, which one won."""
        losses = np.array(self.starts)
        names = [f"start {k + 1}" for k in range(len(losses))]
        if self.warm_start:
            names[0] = "earlier model"
        return pd.DataFrame(
            {
                "start": names,
                "loss": [f"{loss:.8f}" for loss in losses],
                "above the lowest": [f"{loss - losses.min():.8f}" for loss in losses],
                "won": ["yes" if k == self.best else "" for k in range(len(losses))],
            }
        )


def fit(
    ratings: Ratings,
    penalty: Penalty | None = None,
    settings: Settings | None = None,
    prior: Parameters | None = None,
) -> Fit:
    """Minimise the loss of `model.loss` over all parameters.

    Every start draws the guidelines' intercepts and embeddings uniformly from [0, 1), as the
    original does, seeded; the lowest loss wins. f = 0 is always a local minimum of this loss,
    so one start is never enough. A `prior`, NaN where unknown, makes one start more, the first:
    its mu and the guidelines that it knows, the others drawn. It also fixes sign and order of the
    axes; without one, an axis points to the side with more users, and axes are sorted by
    strength, sum n_u |f_u|.

    A failure to converge is data: see `Fit.converged`. Raises ValueError on empty ratings.
    """
    penalty, settings = penalty or Penalty(), settings or Settings()
    if len(ratings) == 0:
        raise ValueError("there are no ratings to fit")
    from aggregation.sweeps import minimise  # loads JAX, a second that others need not wait

    start = _starts(ratings, settings, prior)
    ends, residual, curve = minimise(
        ratings, start, penalty, settings.tolerance, settings.max_sweeps
    )
    best = int(np.argmin(curve[-1]))
    found = _oriented(Parameters(*(a[..., best] for a in vars(ends).values())), ratings, prior)
    return Fit(
        parameters=found,
        objective=float(loss(found, ratings, penalty)),
        converged=bool(residual[best] <= settings.tolerance),
        kkt_residual=float(residual[best]),
        sweeps=len(curve),
        starts=tuple(float(x) for x in curve[-1]),
        best=best,
        history=curve,
        warm_start=prior is not None,
    )


def _starts(ratings: Ratings, settings: Settings, prior: Parameters | None) -> Parameters:
    """Parameters to start from, arrays ending in [S]. Users are solved first: theirs are 0."""
    g, u, d = ratings.n_guidelines, ratings.n_users, settings.dimensions
    random = np.random.default_rng(settings.seed)
    # Drawn start by start, so that more starts never change the earlier ones.
    draws = [random.random((g, 1 + d)) for _ in range(settings.starts)]
    mu = [ratings.helpful.mean()] * settings.starts
    if prior is not None:
        known = np.column_stack([prior.guideline_intercept, prior.guideline_embedding])
        draws.insert(0, np.where(np.isnan(known), draws[0], known))
        mu.insert(0, prior.mu if np.isfinite(prior.mu) else mu[0])
    start = np.stack(draws, axis=-1)
    s = len(mu)
    return Parameters(
        np.array(mu), np.zeros((u, s)), np.zeros((u, d, s)), start[:, 0], start[:, 1:]
    )


def _oriented(p: Parameters, ratings: Ratings, prior: Parameters | None) -> Parameters:
    """Fix order and sign of the axes (see `fit`); the loss is blind to both."""
    users, guidelines = p.user_embedding, p.guideline_embedding
    d = users.shape[1]
    if prior is None:
        strength = (ratings.per_user()[:, None] * np.abs(users)).sum(axis=0)
        order = np.argsort(-strength, kind="stable")
        lead = np.sign(users).sum(axis=0)
        lead = np.where(lead != 0, lead, users.sum(axis=0))[order]
    else:
        both = np.concatenate([users, guidelines])
        earlier = np.nan_to_num(np.concatenate([prior.user_embedding, prior.guideline_embedding]))
        match = earlier.T @ both  # [earlier axis, axis]
        order, lead = np.zeros(d, dtype=int), np.ones(d)
        free = np.abs(match)
        for axis in range(d):
            order[axis] = np.argmax(free[axis])
            lead[axis] = match[axis, order[axis]]
            free[:, order[axis]] = -1.0
    sign = np.where(lead < 0, -1.0, 1.0)
    return Parameters(
        p.mu,
        p.user_intercept,
        users[:, order] * sign + 0.0,  # + 0.0: no negative zeros
        p.guideline_intercept,
        guidelines[:, order] * sign + 0.0,
    )
