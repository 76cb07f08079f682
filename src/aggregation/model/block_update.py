"""Block update: one side of the model solved exactly for the other; loss and residual of a point.

With one side fixed, the loss falls apart into one small lasso (or ridge) for each row of the other.
docs/method.md derives every formula.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from aggregation.model.parameters import Array, Parameters, Penalty
from aggregation.model.sparse_layout import Layout, Side, Sums, row_sums

DESCENTS = 4
"""Coordinate-descent rounds per row and sweep with several axes; one axis needs one."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Terms:
    """All that a sweep needs besides its state."""

    lay: Layout
    fixed_user: Array
    fixed_guideline: Array
    fixed_mu: Array
    intercept: Array
    """lambda_i"""
    embedding: Array
    """lambda_f, [1] or [S]"""
    tolerance: Array
    penalty: Penalty = field(metadata={"static": True})
    """Its shape (norm, per); the strengths are above, so that other ones compile nothing anew."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guess:
    """The guideline side, and mu: what a sweep starts from."""

    mu: Array
    intercept: Array
    embedding: Array

    def flat(self) -> Array:
        """[1 + G + G D, S]"""
        s = self.mu.shape[0]
        return jnp.concatenate([self.mu[None], self.intercept, self.embedding.reshape(-1, s)])

    def unflat(self, x: Array) -> Guess:
        """What `flat` made flat."""
        g, d, s = self.embedding.shape
        return Guess(x[0], x[1 : 1 + g], x[1 + g :].reshape(g, d, s))


def measured(terms: Terms, p: Parameters, by_user: Sums | None) -> tuple[Array, Array, Guess]:
    """Loss [S], KKT residual [S] and T(x) at `p`; `by_user` are the users' sums there.

    Without these the residual leaves the users out.
    """
    lay, users, guidelines = terms.lay, terms.lay.users, terms.lay.guidelines
    d = p.user_embedding.shape[1]
    sums = row_sums(lay, guidelines, p.mu, p.user_intercept, p.user_embedding)
    i, f, fixed = p.guideline_intercept, p.guideline_embedding, terms.fixed_guideline
    new_i, new_f = solve(terms, guidelines, sums, f)
    new_i, new_f = jnp.where(fixed, i, new_i), jnp.where(fixed[:, None], f, new_f)
    a_u, b_u = terms.penalty.shares(users.count, d)
    a_g, b_g = terms.penalty.shares(guidelines.count, d)
    level = p.mu + p.user_intercept
    # sum w r^2 over all ratings follows from the users' counts and sums; by guideline is the rest
    # of sum w e^2.
    rest = (
        guidelines.count * i**2
        - 2 * i * sums.r
        - 2 * (f * sums.hr).sum(axis=1)
        + 2 * i * (f * sums.h).sum(axis=1)
        + (f[:, :, None] * f[:, None] * sums.hh).sum(axis=(1, 2))
    )
    of_users = [
        a_u * p.user_intercept**2,
        users.count * level**2 - 2 * level * users.given,
        *_axes(b_u, terms.penalty.size(p.user_embedding)),
    ]
    of_guidelines = [
        a_g * i**2,
        rest,
        row_errors(guidelines, sums, i, f),
        row_errors(guidelines, sums, new_i, new_f),
        jnp.broadcast_to(guidelines.count, i.shape),
        *_axes(b_g, terms.penalty.size(f)),
        *_axes(b_g, terms.penalty.size(new_f)),
    ]
    intercept_u, squares, *carried_u = fixed_sum(jnp.stack(of_users, axis=1))
    intercept_g, rest, error, new_error, n, *carried_g = fixed_sum(jnp.stack(of_guidelines, axis=1))
    objective = (
        lay.squares
        + squares
        + rest
        + terms.intercept * (intercept_u + n * p.mu**2 + intercept_g)
        + terms.embedding * sum(carried_u + carried_g[:d])
    ) / n
    at_mu = jnp.where(terms.fixed_mu, 0, jnp.abs(2 * (error / n - terms.intercept * p.mu)))
    residual = jnp.maximum(at_mu, _residual(terms, guidelines, sums, i, f, fixed))
    if by_user is not None:
        at_users = _residual(
            terms, users, by_user, p.user_intercept, p.user_embedding, terms.fixed_user
        )
        residual = jnp.maximum(residual, at_users)
    mu = jnp.where(terms.fixed_mu, p.mu, (new_error + n * p.mu) / (n * (1 + terms.intercept)))
    scale = _balance(terms, jnp.stack(carried_u), jnp.stack(carried_g[d:]))
    return objective, residual, Guess(mu, new_i, new_f * scale)


def _axes(share: Array, size: Array) -> list[Array]:
    """[rows, S] for each axis: the penalty that a row carries on it, but for lambda_f."""
    return [share * size[:, axis] for axis in range(size.shape[1])]


def _balance(terms: Terms, users: Array, guidelines: Array) -> Array:
    """[D, S]: what the guidelines' axes are to be scaled by, and the users' divided.

    At every stationary point both sides carry the same penalty, so meet there: the products
    f_u . f_g stay, and the sum of the penalties can only fall. An axis that is dead on one side
    is dead.
    """
    alive = (users > 0) & (guidelines > 0)
    power = 1 / 2 if terms.penalty.norm == "l1" else 1 / 4
    scale = (users / jnp.where(alive, guidelines, 1)) ** power
    return jnp.where(terms.fixed_mu, 1, jnp.where(alive, scale, 0))


def solve(terms: Terms, side: Side, sums: Sums, near: Array) -> tuple[Array, Array]:
    """Each row's best (intercept, embedding): lasso or ridge with the intercept eliminated.

    With m = n + l_i a, A = hh - h h' / m and b = hr - h r / m, each coordinate has the exact
    minimiser soft(b_k - sum_{j != k} A_kj f_j, l_f b / 2) / A_kk, or without the threshold and with
    A_kk + l_f b for squares; the intercept is (r - h . f) / m. Rows without ratings are 0.
    """
    d = near.shape[1]
    a_share, b_share = terms.penalty.shares(side.count, d)
    m = side.count + terms.intercept * a_share
    m = jnp.where(side.count > 0, m, 1)
    strength = terms.embedding * b_share
    threshold, ridge = (strength / 2, 0.0) if terms.penalty.norm == "l1" else (0.0, strength)
    a = sums.hh - sums.h[:, :, None] * sums.h[:, None] / m[:, None, None]
    b = sums.hr - sums.h * (sums.r / m)[:, None]
    f = near
    for _ in range(DESCENTS if d > 1 else 1):
        for k in range(d):
            rest = b[:, k] - (a[:, k] * f).sum(axis=1) + a[:, k, k] * f[:, k]
            # hh >= h^2 / n, so A_kk = 0 only where every h is 0: then f_k = 0 is best.
            curved = sums.hh[:, k, k] > 0
            best = _soft(rest, threshold) / jnp.where(curved, a[:, k, k] + ridge, 1)
            f = f.at[:, k].set(jnp.where(curved, best, 0))
    return (sums.r - (sums.h * f).sum(axis=1)) / m, f


def _residual(terms: Terms, side: Side, sums: Sums, i: Array, f: Array, fixed: Array) -> Array:
    """[S]: largest subgradient distance over the rows, per rating of the row."""
    a_share, b_share = terms.penalty.shares(side.count, f.shape[1])
    rated = side.count > 0
    n = jnp.where(rated, side.count, 1)
    slope_i = 2 * (terms.intercept * a_share * i - row_errors(side, sums, i, f)) / n
    gram = (sums.hh * f[:, None]).sum(axis=2)
    slope_f = -2 * (sums.hr - sums.h * i[:, None] - gram) / n[:, None]
    strength = (terms.embedding * b_share / n)[:, None]
    if terms.penalty.norm == "l1":
        at_zero = jnp.abs(_soft(slope_f, strength))
        away = jnp.where(f != 0, jnp.abs(slope_f + strength * jnp.sign(f)), at_zero)
    else:
        away = jnp.abs(slope_f + 2 * strength * f)
    worst = jnp.maximum(jnp.abs(slope_i), away.max(axis=1))
    return jnp.where(rated & ~fixed, worst, 0).max(axis=0)


def row_errors(side: Side, sums: Sums, i: Array, f: Array) -> Array:
    """[rows, S]: (weighted) sum of rating - prediction over the ratings of each row."""
    return sums.r - side.count * i - (sums.h * f).sum(axis=1)


def _soft(x: Array, threshold: Array | float) -> Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def fixed_sum(x: Array, lanes: int = 256) -> Array:
    """Sum over the first axis in one fixed order, whatever the number of threads: in lanes, and
    then one lane after the other.
    """

    def add(total: Array, line: Array) -> tuple[Array, None]:
        return total + line, None

    lines = -(-x.shape[0] // lanes)
    x = jnp.pad(x, [(0, lines * lanes - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
    x = x.reshape(lines, lanes, *x.shape[1:])
    total, _ = jax.lax.scan(add, jnp.zeros(x.shape[1:], x.dtype), x)
    return jax.lax.scan(add, jnp.zeros(x.shape[2:], x.dtype), total)[0]
