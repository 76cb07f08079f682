"""Gradient descent: the original notebook's, step by step, to reproduce old decisions.

It stops where the loss barely moves, far from the optimum; use it for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aggregation.model.alternating import Sweeper, check_finite
from aggregation.model.multistart import Callback, Found, Minimum, Settings, Start
from aggregation.model.parameters import Parameters, Penalty, filled, predict
from aggregation.model.ratings import Ratings, counts

LEARNING_RATE, MAX_STEPS, MIN_STEPS = 0.1, 10_000, 100  # original notebook, train_model
ABSOLUTE = 1e-8  # its np.isclose(..., atol=10e-9), with numpy's own rtol
STEPS_PER_CALLBACK = 500


@dataclass(frozen=True)
class Descent:
    """Where the descent stopped."""

    parameters: Parameters
    """float32 arrays, after the last step."""
    losses: np.ndarray
    """float32 [steps]: before each step."""
    stopped: bool
    """Whether the loss had stopped to move, by the original's rule; else the cap was reached."""


def replay(
    ratings: Ratings,
    penalty: Penalty,
    settings: Settings,
    warm_start: Parameters | None,
    callback: Callback | None,
) -> Found:
    """One descent from the original's kind of start: uniform draws, where no model is known."""
    u, g, d = ratings.n_users, ratings.n_guidelines, settings.dimensions
    random = np.random.default_rng(settings.seed)
    users, guidelines = random.random((u, d)), random.random((g, d))
    start = Parameters(np.float64(0.0), random.random(u), users, random.random(g), guidelines)
    if warm_start is not None:
        start = filled(warm_start, start)

    def told(steps: int, loss: float) -> None:
        if callback is not None:
            callback("gradient descent", steps, loss, float("nan"))

    end = descend(ratings, start, penalty, told)
    p = Parameters(*(np.asarray(x, np.float64) for x in end.parameters.arrays()))
    objective, residual = Sweeper(ratings, penalty).measure(p)
    kind = "uniform" if warm_start is None else "earlier model"
    return Found(
        minima=(Minimum(objective, residual, end.stopped, 1, p),),
        n_minima=1,
        starts=(Start(kind, False, objective),),
        settled=False,
        moves=0,
        sweeps=len(end.losses),
        history=end.losses[:, None].astype(np.float64),
        sample=0,
        continued=False,
    )


def descend(
    ratings: Ratings,
    start: Parameters,
    penalty: Penalty,
    callback: Callable[[int, float], None] | None = None,
) -> Descent:
    """Full-batch gradient descent in float32: p <- p - 0.1 dL/dp, all parameters at once.

    Stops after at least 100 steps when |L_k - L_k-1| <= 1e-8 + 1e-5 |L_k-1|, or after 10,000. At 0,
    where |f| has no slope, 0 is taken, as JAX does. `callback` is told steps and loss. Raises
    InputError if the loss overflows.
    """
    weight = np.ones(len(ratings)) if ratings.weight is None else ratings.weight
    d = np.shape(start.user_embedding)[1]
    shares = []
    for row, rows in ratings.sides():
        count = counts(row, rows, weight)
        shares.append([x.astype(np.float32) for x in penalty.shares(count, count.mean(), d)])
    losses, stopped = [], False
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is an error of our own
        p = Parameters(*(np.asarray(x, np.float32) for x in start.arrays()))
        while not stopped and len(losses) < MAX_STEPS:
            loss, slope = _loss_and_slope(p, ratings, weight.astype(np.float32), shares, penalty)
            check_finite(loss)
            losses.append(np.float32(loss))
            pairs = zip(p.arrays(), slope, strict=True)
            p = Parameters(*(x - LEARNING_RATE * dx for x, dx in pairs))
            still = len(losses) > 1 and np.isclose(loss, losses[-2], atol=ABSOLUTE)
            stopped = bool(still and len(losses) >= MIN_STEPS)
            if callback is not None and (stopped or len(losses) % STEPS_PER_CALLBACK == 0):
                callback(len(losses), float(loss))
    return Descent(p, np.array(losses), stopped)


def _loss_and_slope(
    p: Parameters,
    ratings: Ratings,
    weight: np.ndarray,
    shares: list[list[np.ndarray]],
    penalty: Penalty,
) -> tuple[float, list[np.ndarray]]:
    """The loss, and its float32 gradient by each array of `p`."""
    n = weight.sum()
    error = ratings.helpful.astype(np.float32) - predict(p, ratings.user, ratings.guideline)
    by_rating = -2 * weight * error / n
    loss = (weight * error**2).sum() / n + penalty.intercept * p.mu**2
    slope = [by_rating.sum() + 2 * penalty.intercept * p.mu]
    others = p.guideline_embedding[ratings.guideline], p.user_embedding[ratings.user]
    for (row, rows), (i, f), (a, b), other in zip(
        ratings.sides(), p.sides(), shares, others, strict=True
    ):
        size = np.sign(f) if penalty.norm == "l1" else 2 * f
        loss += penalty.intercept * (a * i**2).sum() / n
        loss += penalty.embedding * (b[:, None] * penalty.size(f)).sum() / n
        at_f = [np.bincount(row, x, rows) for x in (by_rating[:, None] * other).T]
        slope += [
            np.bincount(row, by_rating, rows) + 2 * penalty.intercept * a * i / n,
            np.stack(at_f, axis=1) + penalty.embedding * b[:, None] * size / n,
        ]
    return loss, [np.asarray(x, np.float32) for x in slope]
