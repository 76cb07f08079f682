"""Descent: the original notebook's gradient descent, step by step, to reproduce old decisions.

It stops where the loss barely moves, far from the optimum; use it for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.model.block_update import fixed_sum, row_errors
from aggregation.model.parameters import Array, Parameters, Penalty
from aggregation.model.ratings import Ratings
from aggregation.model.sparse_layout import Layout, Side, Sums, layout, row_sums

RATE, MOST_STEPS, LEAST_STEPS = 0.1, 10_000, 100  # original notebook, train_model
ABSOLUTE, RELATIVE = 1e-8, 1e-5  # its np.isclose(..., atol=10e-9), and numpy's own rtol
STEPS_PER_CALL = 500

Callback = Callable[[int, float], None]
"""Called now and then with the number of steps and the loss."""


@dataclass(frozen=True)
class Descent:
    """Where the descent stopped."""

    parameters: Parameters
    """float32 NumPy arrays, after the last step."""
    losses: np.ndarray
    """float32 [steps]: before each step."""
    stopped: bool
    """Whether the loss had stopped to move, by the original's rule; else the cap was reached."""


def descend(
    ratings: Ratings, start: Parameters, penalty: Penalty, callback: Callback | None = None
) -> Descent:
    """Full-batch gradient descent in float32: p <- p - 0.1 dL/dp, all parameters at once.

    Stops after at least 100 steps when |L_k - L_k-1| <= 1e-8 + 1e-5 |L_k-1|, or after 10,000. At 0,
    where |f| has no slope, 0 is taken, as JAX does.
    """
    lay = jax.device_put(layout(ratings))
    p = Parameters(*(jnp.asarray(x, jnp.float32)[..., None] for x in start.arrays()))
    last, losses, going = jnp.asarray(jnp.nan, jnp.float32), [np.empty(0, np.float32)], True
    done = 0
    while going and done < MOST_STEPS:
        p, last, kept, steps, moving = _steps(lay, p, last, jnp.int32(done), penalty)
        losses.append(np.asarray(kept)[: int(steps)])
        done, going = done + int(steps), bool(moving)
        if callback is not None:
            callback(done, float(last))
    found = Parameters(*(np.asarray(x)[..., 0] for x in p.arrays()))
    return Descent(found, np.concatenate(losses), not going)


@partial(jax.jit, static_argnames="penalty")
def _steps(
    lay: Layout, p: Parameters, last: Array, done: Array, penalty: Penalty
) -> tuple[Parameters, Array, Array, Array, Array]:
    """Up to STEPS_PER_CALL steps: parameters, last loss, losses, their number, whether to go on."""

    def going(state: tuple[Array, ...]) -> Array:
        _, _, _, k, moving = state
        return (k < STEPS_PER_CALL) & (done + k < MOST_STEPS) & moving

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        p, last, losses, k, _ = state
        loss, slope = _slope(lay, p, penalty)
        still = jnp.abs(loss - last) <= ABSOLUTE + RELATIVE * jnp.abs(last)
        moving = (done + k + 1 < LEAST_STEPS) | ~still
        p = jax.tree.map(lambda x, dx: x - RATE * dx, p, slope)
        return p, loss, losses.at[k].set(loss), k + 1, moving

    losses = jnp.zeros(STEPS_PER_CALL, jnp.float32)
    return jax.lax.while_loop(going, step, (p, last, losses, jnp.int32(0), jnp.asarray(True)))


def _slope(lay: Layout, p: Parameters, penalty: Penalty) -> tuple[Array, Parameters]:
    """The loss and its gradient, from one pass over each side."""
    users, guidelines, n = lay.users, lay.guidelines, fixed_sum(lay.users.count)[0]
    d = p.user_embedding.shape[1]
    by_user = row_sums(lay, users, p.mu, p.guideline_intercept, p.guideline_embedding)
    by_guideline = row_sums(lay, guidelines, p.mu, p.user_intercept, p.user_embedding)
    sides = (
        (users, by_user, p.user_intercept, p.user_embedding),
        (guidelines, by_guideline, p.guideline_intercept, p.guideline_embedding),
    )
    slopes, penalties = [], jnp.float32(0)
    for side, sums, i, f in sides:
        a, b = penalty.shares(side.count, d)
        error, at_f = _errors(side, sums, i, f)
        size = jnp.sign(f) if penalty.norm == "l1" else 2 * f
        slopes += [
            (2 * penalty.intercept * a * i - 2 * error) / n,
            (penalty.embedding * b[:, None] * size - 2 * at_f) / n,
        ]
        penalties += penalty.intercept * fixed_sum(a * i**2)[0]
        penalties += penalty.embedding * fixed_sum(b[:, None] * penalty.size(f)).sum()
    error, at_f = _errors(users, by_user, p.user_intercept, p.user_embedding)
    level = p.mu + p.guideline_intercept
    # sum e^2 = sum r^2 - i (sum r + sum e) - f (sum h r + sum h e) over each user's ratings
    squares = (
        lay.squares[0]
        + fixed_sum(guidelines.count * level**2 - 2 * level * guidelines.given)[0]
        - fixed_sum(p.user_intercept * (by_user.r + error))[0]
        - fixed_sum((p.user_embedding * (by_user.hr + at_f)).sum(axis=1))[0]
    )
    at_mu = 2 * penalty.intercept * p.mu - 2 * fixed_sum(error) / n
    loss = (squares + penalties) / n + penalty.intercept * p.mu[0] ** 2
    return loss, Parameters(at_mu, *slopes)


def _errors(side: Side, sums: Sums, i: Array, f: Array) -> tuple[Array, Array]:
    """Over each row's ratings, with e = rating - prediction: sum e and sum h e."""
    at_f = sums.hr - sums.h * i[:, None] - (sums.hh * f[:, None]).sum(axis=2)
    return row_errors(side, sums, i, f), at_f
