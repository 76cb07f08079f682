"""Sweeps: exact alternating minimisation, compiled, for several starts side by side.

A sweep solves all guidelines, then mu, then all users. docs/method.md derives every formula.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.layout import Layout, Sums, layout, row_sums
from aggregation.model import Array, Parameters, Penalty
from aggregation.ratings import Ratings

SWEEPS_PER_CALL = 100
"""Sweeps between two looks at the residual; the compiled loop's length."""

DESCENTS = 4
"""Coordinate-descent rounds per row and sweep with several axes; one axis needs one."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    """S starts side by side: arrays end in an axis [S]."""

    parameters: Parameters
    sums: Sums
    """The guidelines' sums at `parameters`; before the first sweep nothing is known of them."""
    residual: Array
    """[S]: KKT residual at `parameters`."""
    sweeps: Array
    history: Array
    """[SWEEPS_PER_CALL, S]: loss after each sweep of this call."""


def minimise(
    ratings: Ratings, start: Parameters, penalty: Penalty, tolerance: float, max_sweeps: int
) -> tuple[Parameters, np.ndarray, np.ndarray]:
    """Sweep from `start`, arrays ending in [S], until every KKT residual is at most `tolerance`.

    Gives up after `max_sweeps`. Returns the parameters where each start ended, its residual [S],
    and the loss after each sweep [sweeps, S]; all float64 NumPy.
    """
    with jax.enable_x64(True):
        lay = jax.tree.map(jnp.asarray, layout(ratings))
        weights = (jnp.asarray(penalty.intercept), jnp.asarray(penalty.embedding))
        state = _first_state(start)
        curve = np.empty((0, len(state.residual)))
        while True:
            limit = min(SWEEPS_PER_CALL, max_sweeps - len(curve))
            state = _sweeps(lay, weights, jnp.asarray(tolerance), jnp.int32(limit), state)
            curve = np.concatenate([curve, np.asarray(state.history)[: int(state.sweeps)]])
            residual = np.asarray(state.residual)
            if (residual <= tolerance).all() or len(curve) >= max_sweeps:
                return jax.tree.map(np.asarray, state.parameters), residual, curve


def _first_state(p: Parameters) -> _State:
    """The state of starts that have not swept yet, from NumPy arrays ending in [S]."""
    p = jax.tree.map(jnp.asarray, p)
    # Every dtype is spelt out: a type that changes after the first call would compile it anew.
    g, d, s = p.guideline_embedding.shape
    return _State(
        parameters=p,
        sums=Sums(
            jnp.zeros((g, 1 + d, s), jnp.float64), jnp.zeros((g, 1 + d, 1 + d, s), jnp.float64)
        ),
        residual=jnp.full(s, jnp.inf, jnp.float64),
        sweeps=jnp.zeros((), jnp.int32),
        history=jnp.zeros((SWEEPS_PER_CALL, s), jnp.float64),
    )


# XLA's newer fusion emitters take 1.7 times as long to compile these loops, which then run 1.3
# times as long (measured with jax 0.10.2 on vtaiwan.uberx: 3.1 s and 0.7 s; without, 1.8 and 0.5).
@partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": False})
def _sweeps(lay: Layout, weights: Array, tolerance: Array, limit: Array, state: _State) -> _State:
    """Sweep until every start is stationary, `limit` times at most.

    All in one loop whose body walks over each side once: compiling these walks is what a fit of
    a small deliberation waits for.
    """

    def going(state: _State) -> Array:
        return (state.sweeps < limit) & (state.residual > tolerance).any()

    def sweep(state: _State) -> _State:
        p = _guidelines(lay, weights, state)
        sums = row_sums(lay.users, p.mu, p.guideline_intercept, p.guideline_embedding)
        intercept, embedding = _solve(sums, lay.users.count, weights, p.user_embedding)
        p = replace(p, user_intercept=intercept, user_embedding=embedding)
        at_users = _residual(sums, lay.users.count, weights, intercept, embedding)
        sums = row_sums(lay.guidelines, p.mu, intercept, embedding)
        objective, residual = _measure(lay, weights, p, sums)
        return _State(
            p,
            sums,
            jnp.maximum(residual, at_users),
            state.sweeps + 1,
            state.history.at[state.sweeps].set(objective),
        )

    return jax.lax.while_loop(going, sweep, replace(state, sweeps=jnp.zeros((), jnp.int32)))


def _guidelines(lay: Layout, weights: Array, state: _State) -> Parameters:
    """Solve the guidelines, then mu, then balance the two sides."""
    p, sums, count = state.parameters, state.sums, lay.guidelines.count
    n = count.sum()
    intercept, embedding = _solve(sums, count, weights, p.guideline_embedding)
    error = fixed_sum(_error(sums, count, intercept, embedding))
    mu = (error + n * p.mu) / (n * (1 + weights[0]))
    # At every stationary point both sides carry the same penalty, so meet there: the products
    # f_u . f_g stay, and the sum of the penalties can only fall.
    strength_u = fixed_sum(lay.users.count[:, None, None] * jnp.abs(p.user_embedding))
    strength_g = fixed_sum(count[:, None, None] * jnp.abs(embedding))
    alive = (strength_u > 0) & (strength_g > 0)
    scale = jnp.where(alive, jnp.sqrt(strength_u / jnp.where(alive, strength_g, 1)), 0)
    solved = Parameters(
        mu,
        p.user_intercept,
        jnp.where(alive, p.user_embedding / jnp.where(alive, scale, 1), 0),
        intercept,
        embedding * scale,
    )
    unknown = jnp.isinf(state.residual)  # before the first sweep there is nothing to solve from
    return jax.tree.map(lambda old, new: jnp.where(unknown, old, new), p, solved)


def _solve(sums: Sums, count: Array, weights: Array, near: Array) -> tuple[Array, Array]:
    """Each row's best (intercept, embedding): a lasso with its intercept eliminated.

    With A = hh - h h' / (n (1 + l_i)) and b = hr - h r / (n (1 + l_i)), each coordinate has the
    exact minimiser f_k = soft(b_k - sum_{j != k} A_kj f_j, l_f n / 2) / A_kk, and the intercept is
    (r - h . f) / (n (1 + l_i)).
    """
    intercept, l1 = weights
    n = count[:, None]
    ridge = n * (1 + intercept)
    a = sums.hh - sums.h[:, :, None] * sums.h[:, None] / ridge[:, None, None]
    b = sums.hr - sums.h * (sums.r / ridge)[:, None]
    f = near
    d = f.shape[1]
    for _ in range(DESCENTS if d > 1 else 1):
        for k in range(d):
            rest = b[:, k] - (a[:, k] * f).sum(axis=1) + a[:, k, k] * f[:, k]
            # hh >= h^2 / n, so A_kk = 0 only where every h is 0: then f_k = 0 is best.
            curved = sums.hh[:, k, k] > 0
            best = _soft(rest, l1 * n / 2) / jnp.where(curved, a[:, k, k], 1)
            f = f.at[:, k].set(jnp.where(curved, best, 0))
    return (sums.r - (sums.h * f).sum(axis=1)) / ridge, f


def _measure(lay: Layout, weights: Array, p: Parameters, sums: Sums) -> tuple[Array, Array]:
    """Loss [S], and KKT residual [S] at mu and the guidelines, from the guidelines' sums."""
    intercept, l1 = weights
    nu, ng = lay.users.count[:, None], lay.guidelines.count[:, None]
    n = lay.guidelines.count.sum()  # whole numbers: exact in any order
    i, f = p.guideline_intercept, p.guideline_embedding
    squares = (
        sums.rr
        - 2 * i * sums.r
        - 2 * (f * sums.hr).sum(axis=1)
        + ng * i**2
        + 2 * i * (f * sums.h).sum(axis=1)
        + (f[:, :, None] * f[:, None] * sums.hh).sum(axis=(1, 2))
    )
    objective = (
        fixed_sum(squares)
        + intercept * (fixed_sum(nu * p.user_intercept**2) + n * p.mu**2 + fixed_sum(ng * i**2))
        + l1 * fixed_sum(nu * jnp.abs(p.user_embedding).sum(axis=1))
        + l1 * fixed_sum(ng * jnp.abs(f).sum(axis=1))
    ) / n
    error = fixed_sum(_error(sums, lay.guidelines.count, i, f))
    at_mu = jnp.abs(2 * (error / n - intercept * p.mu))
    return objective, jnp.maximum(at_mu, _residual(sums, lay.guidelines.count, weights, i, f))


def _residual(sums: Sums, count: Array, weights: Array, i: Array, f: Array) -> Array:
    """[S]: largest subgradient distance over the rows, per rating of the row."""
    intercept, l1 = weights
    n = count[:, None]
    slope_i = 2 * (intercept * i - _error(sums, count, i, f) / n)
    gram = (sums.hh * f[:, None]).sum(axis=2)
    slope_f = -2 * (sums.hr - sums.h * i[:, None] - gram) / n[:, None]
    away = jnp.where(f != 0, jnp.abs(slope_f + l1 * jnp.sign(f)), jnp.abs(_soft(slope_f, l1)))
    return jnp.maximum(jnp.abs(slope_i).max(axis=0), away.max(axis=(0, 1)))


def _error(sums: Sums, count: Array, i: Array, f: Array) -> Array:
    """[rows, S]: sum of rating - prediction over the ratings of each row."""
    return sums.r - count[:, None] * i - (sums.h * f).sum(axis=1)


def _soft(x: Array, threshold: Array) -> Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def fixed_sum(x: Array) -> Array:
    """Sum over the first axis by halving, so that the order of additions never changes."""
    length = 1 << max(x.shape[0] - 1, 0).bit_length()
    x = jnp.concatenate([x, jnp.zeros((length - x.shape[0], *x.shape[1:]), x.dtype)])
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        x = x[:half] + x[half:]
    return x[0]
