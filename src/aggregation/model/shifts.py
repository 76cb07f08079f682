"""Shifts: moves of all rows at once that leave every prediction as it is.

    i_u += s - c . f_u,  f_g += c,    i_g += t - e . f_g,  f_u += e,    mu -= s + t + c . e

Only the penalties tell such points apart. Alternating minimisation holds one side fixed, so it
creeps along these moves. `shift` takes them by one Gauss-Newton step. docs/method.md, "Fewer
sweeps", has what was measured.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.model.parameters import Array


def statistics(share: Array, i: Array, f: Array, slope: Array, stiff: Array) -> Array:
    """[rows, K, S]: what the rows of one side add to `shift`.

    `share` is what a row's intercept weighs in the penalty; `slope` [rows, D, S] and `stiff` [rows,
    D, D, S] are half the first and second derivatives of what it costs to move all embeddings.
    """
    rows, d, s = f.shape
    v = jnp.concatenate([jnp.ones((rows, 1, s)), -f], axis=1)
    weighed = share[:, None] * v
    products = (weighed[:, :, None] * v[:, None]).reshape(rows, -1, s)
    return jnp.concatenate(
        [products, weighed * i[:, None], slope, stiff.reshape(rows, d * d, s)], axis=1
    )


def shift(
    strength: Array, n: Array, mu: Array, users: Array, guidelines: Array, d: int
) -> tuple[Array, Array, Array, Array]:
    """The moves s [S], c [D, S], t [S], e [D, S] towards where the penalties are least, by one
    Gauss-Newton step: without the product c . e, so the matrix stays semi-definite.

    `strength` is lambda_i, `n` [S] the (weighted) number of ratings, `users` and `guidelines` [K,
    S] the sums of their `statistics`.
    """
    m, level = 1 + d, strength * n
    split = (m * m, m * m + m, m * m + m + d)
    products, pulls, slopes, stiffs = zip(
        *(jnp.split(x, split) for x in (users, guidelines)), strict=True
    )
    curvature, pull = 0.0, []
    for k in range(2):  # the intercepts of one side move against the embeddings of the other
        block = strength * products[k].reshape(m, m, -1)
        block += jnp.pad(stiffs[1 - k].reshape(d, d, -1), ((1, 0), (1, 0), (0, 0)))
        curvature += jnp.pad(block, ((k * m, m - k * m), (k * m, m - k * m), (0, 0)))
        pull += [strength * pulls[k] + jnp.pad(slopes[1 - k], ((1, 0), (0, 0)))]
    constant = np.zeros((2 * m, 1))  # s and t, for which mu makes up
    constant[[0, m]] = 1.0
    curvature += level * constant[:, None] * constant
    step = -solved(curvature, jnp.concatenate(pull) - level * mu * constant)
    return step[0], step[1:m], step[m], step[m + 1 :]


def solved(a: Array, b: Array) -> Array:
    """For each of S starts the x [K, S] of a x = b, a [K, K, S] symmetric and at least
    semi-definite: a share of 1e-12 of its trace is added.

    Gauss and Jordan's elimination, which needs no pivots then. LAPACK's takes a fifth of a second
    to compile.
    """
    trace = jnp.trace(a)
    a += (1e-12 * trace + jnp.where(trace > 0, 0, 1)) * jnp.eye(len(a))[..., None]
    both = jnp.concatenate([a, b[:, None]], axis=1)

    def eliminate(k: Array, both: Array) -> Array:
        row = both[k] / both[k, k]
        return (both - both[:, k, None] * row).at[k].set(row)

    return jax.lax.fori_loop(0, len(a), eliminate, both)[:, -1]
