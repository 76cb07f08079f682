"""Shifts leave predictions as they are, lower the penalties, and save sweeps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deliberations import simulated

from aggregation import Parameters, Penalty
from aggregation.model import alternating as module
from aggregation.model.shifts import shift, statistics

STRENGTHS = (0.15, 0.03)


def roots(p):
    """What the penalty is the sum of squares of, where each row is weighed once."""
    (mu, i, f, j, h), (strength_i, strength_f) = p, np.sqrt(STRENGTHS)
    level = mu * np.sqrt(len(i) + len(j))
    intercepts = [strength_i * x for x in (level[None], i, j)]
    return jnp.concatenate([*intercepts, strength_f * f.ravel(), strength_f * h.ravel()])


def moved(p, s, c, t, e):
    mu, i, f, j, h = p
    return mu - s - t - c @ e, i + s - f @ c, f + e, j + t - h @ e, h + c


def predictions(p):
    mu, i, f, j, h = p
    return mu + i[:, None] + j + f @ h.T


@pytest.mark.parametrize("d", [1, 3])
def test_a_shift_changes_no_prediction_and_is_the_gauss_newton_step_of_the_penalty(d):
    random = np.random.default_rng(d)
    p = np.float64(0.7), *(random.normal(size=n) for n in (9, (9, d), 7, (7, d)))
    with jax.enable_x64(True):

        def along(x):
            return roots(moved(p, x[0], x[1 : 1 + d], x[1 + d], x[2 + d :]))

        here = np.zeros(2 + 2 * d)
        slopes = np.asarray(jax.jit(jax.jacobian(along))(here))
        expected = np.linalg.lstsq(slopes, -np.asarray(along(here)), rcond=None)[0]
        s, c, t, e = map(np.asarray, step(p, d))
        after = moved(p, s, c, t, e)
    np.testing.assert_allclose(np.hstack([s, c, t, e]), expected, rtol=1e-8)
    np.testing.assert_allclose(predictions(after), predictions(p), atol=1e-12)


@partial(jax.jit, static_argnames="d")
def step(p, d):
    """What `shift` says, if all rows have as many ratings."""
    strength_i, strength_f = STRENGTHS
    mu, *sides = p
    sums = []
    for i, f in (sides[:2], sides[2:]):
        stiff = np.broadcast_to(strength_f * np.eye(d), (len(i), d, d))[..., None]
        f = f[..., None]
        rows = statistics(jnp.ones((len(i), 1)), i[:, None], f, strength_f * f, stiff)
        sums.append(rows.sum(axis=0))
    n = np.array([len(sides[0]) + len(sides[2])])
    return [x[..., 0] for x in shift(strength_i, n, jnp.array([mu]), *sums, d)]


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_what_alternating_creeps_along_is_taken_at_once(monkeypatch, norm):
    """Without extrapolation, which learns the same after some sweeps."""
    ratings = simulated()[0]
    draw = np.random.default_rng(0).random((ratings.n_guidelines, 2, 1))
    users = np.zeros((ratings.n_users, 1))
    start = Parameters(np.full(1, 0.5), users, users[:, None], draw[:, 0], draw[:, 1:])
    sweeps = []
    for name in ("image", "shifted"):
        monkeypatch.setattr(
            module, "extrapolated", lambda _, state, name=name: getattr(state, name)
        )
        monkeypatch.setattr(module, "_sweeps_of_few", jax.jit(lambda *x: module._sweeps(*x)))
        ends = module.Sweeper(ratings, Penalty(norm=norm)).sweep(start, 1e-8, 2000)
        assert (ends.residual <= 1e-8).all()
        sweeps.append(len(ends.history))
    assert sweeps[1] <= 0.3 * sweeps[0]
