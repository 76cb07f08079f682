"""The replay follows the original notebook step by step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aggregation import COMMUNITY_NOTES, Parameters, Penalty, Ratings, Settings, fit
from aggregation.model import gradient_descent as module
from aggregation.model.gradient_descent import MIN_STEPS, descend


@pytest.fixture
def ratings(world):
    return world[0]


def drawn(ratings, axes=1, seed=0):
    random = np.random.default_rng(seed)
    u, g = ratings.n_users, ratings.n_guidelines
    return Parameters(
        0.0, random.random(u), random.random((u, axes)), random.random(g), random.random((g, axes))
    )


def dense_losses(ratings, start, steps, penalty):
    """The original's loop on a dense matrix, in this test's own words."""
    y = np.full((ratings.n_users, ratings.n_guidelines), np.nan, np.float32)
    y[ratings.user, ratings.guideline] = ratings.helpful
    seen = jnp.asarray(~np.isnan(y), jnp.float32)
    y = jnp.nan_to_num(jnp.asarray(y))
    n, (u, g) = seen.sum(), seen.shape
    if penalty.per == "rating":
        a_u = b_u = seen.sum(axis=1)
        a_g = b_g = seen.sum(axis=0)
    else:
        a_u = b_u = jnp.full(u, n / u)
        a_g = b_g = jnp.full(g, n / g)

    def size(f):
        return (jnp.abs(f) if penalty.norm == "l1" else f**2).sum(axis=1)

    def loss(p):
        guess = p.mu + p.user_intercept[:, None] + p.guideline_intercept
        guess += p.user_embedding @ p.guideline_embedding.T
        squares = (((y - guess) * seen) ** 2).sum()
        intercepts = (a_u * p.user_intercept**2).sum() + (a_g * p.guideline_intercept**2).sum()
        intercepts += n * p.mu**2
        embeddings = (b_u * size(p.user_embedding)).sum() + (
            b_g * size(p.guideline_embedding)
        ).sum()
        return (squares + penalty.intercept * intercepts + penalty.embedding * embeddings) / n

    step = jax.jit(jax.value_and_grad(loss))
    p, losses = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start), []
    for _ in range(steps):
        value, slope = step(p)
        losses.append(float(value))
        p = jax.tree.map(lambda x, dx: x - 0.1 * dx, p, slope)
    return np.array(losses)


@pytest.mark.parametrize(
    ("axes", "penalty"), [(2, Penalty()), (1, replace(COMMUNITY_NOTES, embedding=0.1))]
)
def test_losses_are_those_of_the_dense_loop(ratings, axes, penalty, monkeypatch):
    monkeypatch.setattr(module, "MAX_STEPS", 200)
    start = drawn(ratings, axes)
    found = descend(ratings, start, penalty)
    expected = dense_losses(ratings, start, 200, penalty)
    assert found.losses.dtype == np.float32
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


def test_it_stops_where_the_original_does(ratings):
    found = descend(ratings, drawn(ratings), Penalty(intercept=1.0, embedding=0.3))
    still = np.isclose(found.losses[1:], found.losses[:-1], atol=1e-8)  # numpy's rtol 1e-5 decides
    steps = np.arange(2, len(found.losses) + 1)
    assert found.stopped
    assert steps[still & (steps >= MIN_STEPS)][0] == len(found.losses)


def test_it_never_stops_before_a_hundred_steps():
    one = np.zeros(1, np.int32)
    start = Parameters(0.0, np.zeros(1), np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)))
    found = descend(Ratings(one, one, np.zeros(1), 1, 1), start, Penalty())
    assert len(found.losses) == MIN_STEPS


def test_fit_replays_it_and_says_that_nothing_is_certified(ratings, optimum):
    told = []
    replay = fit(
        ratings, settings=Settings(method="gradient-descent"), callback=lambda *x: told.append(x)
    )
    assert replay.objective > 1.05 * optimum.objective
    assert replay.kkt_residual > 0.01
    assert replay.sweeps == len(replay.history) == told[-1][1]
    assert "certifies nothing" in replay.doubts()[0]


def test_the_replay_starts_from_an_earlier_model(ratings, optimum):
    settings = Settings(method="gradient-descent")
    replay = fit(ratings, settings=settings, warm_start=optimum.parameters)
    assert replay.warm_start
    assert replay.history[0, 0] == pytest.approx(optimum.objective, rel=1e-5)
