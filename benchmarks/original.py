"""The original notebook's descent as it ran: dense, in JAX, not compiled. To measure against."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from aggregation import Ratings


def dense_loss(mu, user_f, guideline_f, user_i, guideline_i, matrix):
    """`cn_loss` over the whole user x guideline matrix, NaN where nobody rated."""
    given = 1 - jnp.isnan(matrix)
    predicted = mu + user_i[:, None] + guideline_i[None] + user_f @ guideline_f.T
    n_u, n_g = given.sum(axis=1), given.sum(axis=0)
    squares = (((jnp.nan_to_num(matrix) - predicted) * given) ** 2).sum()
    intercepts = (n_u * user_i**2).sum() + ((given * mu) ** 2).sum() + (n_g * guideline_i**2).sum()
    embeddings = (jnp.abs(user_f) * n_u[:, None]).sum() + (
        jnp.abs(guideline_f) * n_g[:, None]
    ).sum()
    return (squares + 0.15 * intercepts + 0.03 * embeddings) / given.sum()


def seconds_per_step(ratings: Ratings, steps: int, seed: int = 0) -> float:
    """One step: the loss, its gradient, and p <- p - 0.1 dL/dp, as the original did."""
    random = np.random.default_rng(seed)
    u, g = ratings.n_users, ratings.n_guidelines
    matrix = np.full((u, g), np.nan, np.float32)
    matrix[ratings.user, ratings.guideline] = ratings.helpful
    matrix = jnp.asarray(matrix)
    draws = [random.random(shape) for shape in ((u, 1), (g, 1), u, g)]
    p = [jnp.asarray(0.0), *(jnp.asarray(x, jnp.float32) for x in draws)]
    slope = jax.grad(dense_loss, argnums=tuple(range(5)))

    def step(p):
        value = dense_loss(*p, matrix)
        return [x - 0.1 * dx for x, dx in zip(p, slope(*p, matrix), strict=True)], float(value)

    for _ in range(3):  # its operations are compiled one by one, at first use
        p, _ = step(p)
    began = time.perf_counter()
    for _ in range(steps):
        p, _ = step(p)
    return (time.perf_counter() - began) / steps
