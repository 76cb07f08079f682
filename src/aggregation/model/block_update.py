"""Block update: one side of the model solved exactly for the other; loss and residual of a point.

With one side fixed, the loss falls apart into one small lasso (or ridge) for each row of the other.
docs/method.md derives every formula.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from aggregation.model.parameters import Array, Parameters, Penalty
from aggregation.model.shifts import shift, statistics
from aggregation.model.sparse_layout import Layout, Sums, row_sums

DESCENTS = 4
"""Coordinate-descent rounds per row and sweep with several axes; one axis needs one."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """The rows of one side, or some of them."""

    count: Array
    """float64 [rows, W]: (weighted) number of ratings."""
    mean: Array
    """float64 [W]: its mean over all rows of the side."""
    fixed: Array
    """bool [rows, 1]: which rows keep their values."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Terms:
    """All that a sweep needs besides its state."""

    lay: Layout
    users: Rows
    guidelines: Rows
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
class Part:
    """What some users add to the guidelines' update, to the loss and to the residual."""

    sums: Sums
    """The guidelines' sums over these users' ratings."""
    totals: Array
    """[K, S]: penalty of intercepts, the users' part of the squares, penalty of each axis, and,
    where the users' own sums are known, their `shifts.statistics`."""
    residual: Array
    """[S]: the users' KKT residual."""


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


def solved_users(terms: Terms, guess: Guess, near: Parameters) -> tuple[Array, Array, Part]:
    """Intercepts and embeddings of all users, solved for `guess`, and what they add.

    `near`: what they were, where the solver begins and what fixed rows keep.
    """
    lay, users = terms.lay, terms.users
    sums = row_sums(lay, lay.users, guess.mu, guess.intercept, guess.embedding)
    intercept, embedding = solve(terms, users, sums, near.user_embedding)
    intercept = jnp.where(users.fixed, near.user_intercept, intercept)
    embedding = jnp.where(users.fixed[:, None], near.user_embedding, embedding)
    p = Parameters(guess.mu, intercept, embedding, guess.intercept, guess.embedding)
    return intercept, embedding, part(terms, p, sums)


def part(terms: Terms, p: Parameters, by_user: Sums | None) -> Part:
    """What the users add at `p`; `by_user` are their sums there.

    Without these the residual leaves the users out.
    """
    lay, users = terms.lay, terms.users
    share_i, share_f = _shares(terms, users, p.user_embedding)
    level = p.mu + p.user_intercept
    numbers = [
        share_i * p.user_intercept**2,
        users.count * level**2 - 2 * level * lay.users.given,
        *_axes(share_f, terms.penalty.size(p.user_embedding)),
    ]
    each, residual = jnp.stack(numbers, axis=1), jnp.zeros(p.mu.shape)
    if by_user is not None:
        own = p.user_intercept, p.user_embedding
        residual = _residual(terms, users, by_user, *own)
        each = jnp.concatenate([each, _statistics(terms, users, by_user, *own)], axis=1)
    sums = row_sums(lay, lay.guidelines, p.mu, p.user_intercept, p.user_embedding)
    return Part(sums, fixed_sum(each), residual)


def measured(terms: Terms, guess: Guess, users: Part) -> tuple[Array, Array, Guess, Guess]:
    """Loss [S], KKT residual [S], T(x) and T(x) shifted, at the guideline side `guess` and all
    users. Without statistics of the users it is not shifted.
    """
    mu, i, f, sums, rows = guess.mu, guess.intercept, guess.embedding, users.sums, terms.guidelines
    d = f.shape[1]
    new_i, new_f = solve(terms, rows, sums, f)
    new_i, new_f = jnp.where(rows.fixed, i, new_i), jnp.where(rows.fixed[:, None], f, new_f)
    share_i, share_f = _shares(terms, rows, f)
    # sum w r^2 over all ratings follows from the users' counts and sums; by guideline is the rest
    # of sum w e^2.
    rest = (
        rows.count * i**2
        - 2 * i * sums.r
        - 2 * (f * sums.hr).sum(axis=1)
        + 2 * i * (f * sums.h).sum(axis=1)
        + (f[:, :, None] * f[:, None] * sums.hh).sum(axis=(1, 2))
    )
    numbers = [
        share_i * i**2,
        rest,
        row_errors(rows, sums, i, f),
        row_errors(rows, sums, new_i, new_f),
        jnp.broadcast_to(rows.count, i.shape),
        *_axes(share_f, terms.penalty.size(f)),
        *_axes(share_f, terms.penalty.size(new_f)),
    ]
    each = jnp.concatenate(
        [jnp.stack(numbers, axis=1), _statistics(terms, rows, sums, new_i, new_f)], axis=1
    )
    totals, of_guidelines = jnp.split(fixed_sum(each), [len(numbers)])
    (intercept_u, squares, *carried_u), of_users = users.totals[: 2 + d], users.totals[2 + d :]
    intercept_g, rest, error, new_error, n, *carried_g = totals
    objective = (
        terms.lay.squares
        + squares
        + rest
        + terms.intercept * (intercept_u + n * mu**2 + intercept_g)
        + terms.embedding * sum(carried_u + carried_g[:d])
    ) / n
    at_mu = jnp.where(terms.fixed_mu, 0, jnp.abs(2 * (error / n - terms.intercept * mu)))
    residual = jnp.maximum(at_mu, _residual(terms, rows, sums, i, f))
    residual = jnp.maximum(residual, users.residual)
    new_mu = jnp.where(terms.fixed_mu, mu, (new_error + n * mu) / (n * (1 + terms.intercept)))
    scale = _balance(terms, jnp.stack(carried_u), jnp.stack(carried_g[d:]))
    image = shifted = Guess(new_mu, new_i, new_f * scale)
    if len(of_users):
        step = shift(terms.intercept, n, new_mu, of_users, of_guidelines, d)
        s, c, t, e = (jnp.where(terms.fixed_mu, 0, x) for x in step)
        moved = new_f + c
        # Rows without ratings stay at zero, embeddings at zero too, and with a lasso none changes
        # its sign.
        stays = jnp.sign(moved) != jnp.sign(new_f) if terms.penalty.norm == "l1" else new_f == 0
        shifted = Guess(
            new_mu - s - t - (c * e).sum(axis=0),
            new_i + jnp.where(rows.count > 0, t, 0) - (new_f * e).sum(axis=1),
            jnp.where(stays, new_f, moved) * scale,
        )
    return objective, residual, image, shifted


def _statistics(terms: Terms, rows: Rows, sums: Sums, i: Array, f: Array) -> Array:
    """See `shifts`. The rows were just solved, so the penalty of an embedding pulls as hard as its
    ratings do. Under a lasso, embeddings at zero stay there while all others move, for which their
    ratings pay; else the penalty is curved.
    """
    share, b = _shares(terms, rows, f)
    slope = sums.hr - sums.h * i[:, None] - (sums.hh * f[:, None]).sum(axis=2)
    if terms.penalty.norm == "l1":
        zero = f == 0
        stiff = jnp.where(zero[:, :, None] & zero[:, None], sums.hh, 0)
    else:
        curved = jnp.where(rows.count > 0, terms.embedding * b, 0)[:, None, None]
        stiff = jnp.broadcast_to(curved * jnp.eye(f.shape[1])[..., None], sums.hh.shape)
    return statistics(jnp.where(rows.count > 0, share, 0), i, f, slope, stiff)


def _shares(terms: Terms, rows: Rows, f: Array) -> tuple[Array, Array]:
    return terms.penalty.shares(rows.count, rows.mean, f.shape[1])


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


def solve(terms: Terms, rows: Rows, sums: Sums, near: Array) -> tuple[Array, Array]:
    """Each row's best (intercept, embedding): lasso or ridge with the intercept eliminated.

    With m = n + l_i a, A = hh - h h' / m and b = hr - h r / m, each coordinate has the exact
    minimiser soft(b_k - sum_{j != k} A_kj f_j, l_f b / 2) / A_kk, or without the threshold and with
    A_kk + l_f b for squares; the intercept is (r - h . f) / m. Rows without ratings are 0.
    """
    d = near.shape[1]
    a_share, b_share = _shares(terms, rows, near)
    m = rows.count + terms.intercept * a_share
    m = jnp.where(rows.count > 0, m, 1)
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


def _residual(terms: Terms, rows: Rows, sums: Sums, i: Array, f: Array) -> Array:
    """[S]: largest subgradient distance over the rows, per rating of the row."""
    a_share, b_share = _shares(terms, rows, f)
    rated = rows.count > 0
    n = jnp.where(rated, rows.count, 1)
    slope_i = 2 * (terms.intercept * a_share * i - row_errors(rows, sums, i, f)) / n
    gram = (sums.hh * f[:, None]).sum(axis=2)
    slope_f = -2 * (sums.hr - sums.h * i[:, None] - gram) / n[:, None]
    strength = (terms.embedding * b_share / n)[:, None]
    if terms.penalty.norm == "l1":
        at_zero = jnp.abs(_soft(slope_f, strength))
        away = jnp.where(f != 0, jnp.abs(slope_f + strength * jnp.sign(f)), at_zero)
    else:
        away = jnp.abs(slope_f + 2 * strength * f)
    worst = jnp.maximum(jnp.abs(slope_i), away.max(axis=1))
    return jnp.where(rated & ~rows.fixed, worst, 0).max(axis=0)


def row_errors(rows: Rows, sums: Sums, i: Array, f: Array) -> Array:
    """[rows, S]: (weighted) sum of rating - prediction over the ratings of each row."""
    return sums.r - rows.count * i - (sums.h * f).sum(axis=1)


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
