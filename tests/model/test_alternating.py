"""A sweep lowers the loss of every start, and remembers the last ones rightly."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from deliberations import dense, one_descent, simulated
from hypothesis import given, settings, strategies as st

from aggregation import Parameters, Penalty, fit
from aggregation.model import alternating as module


@pytest.mark.parametrize(("dimensions", "norm", "per"), [(1, "l1", "rating"), (2, "l2", "rating")])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_sweep_lowers_the_loss_of_every_start(dimensions, norm, per, seed):
    ratings = dense(np.random.default_rng(seed).choice([0.0, 0.5, 1.0], (8, 6)))
    penalty = Penalty(norm=norm, per=per)
    settings = one_descent(dimensions=dimensions, starts=3, max_starts=3, seed=seed)
    found = fit(ratings, penalty, settings)
    assert np.diff(found.history, axis=0).max(initial=0) <= 1e-12
    assert found.objective <= found.history[-1].min() + 1e-12
    assert np.isfinite(found.parameters.user_embedding).all()


@pytest.mark.parametrize("sweeps", [3, 20])  # the memory is not full, and was written over
def test_the_products_that_are_kept_are_those_of_the_changes_that_are_kept(sweeps):
    ratings = dense(np.random.default_rng(2).choice([0.0, 0.5, 1.0], (8, 6)))
    draw = np.random.default_rng(3).random((6, 2, 3))
    users = np.zeros((8, 3))
    start = Parameters(np.full(3, 0.5), users, users[:, None], draw[:, 0], draw[:, 1:])
    sweeper = module.Sweeper(ratings, Penalty())
    with jax.enable_x64(True):
        state = module.first_state(start)
        state = module._sweeps_of_few(sweeper.terms, np.int32(sweeps), state)
    weight = np.concatenate([[len(ratings)], np.full(12, 8)])  # mu, and 6 guidelines twice
    change = np.asarray(state.change)
    expected = np.einsum("aps,bps,p->abs", change, change, weight)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(state.gram, expected, rtol=1e-12, atol=1e-18)


def states(ratings, tolerance):
    """The state after every sweep, until all starts have this residual."""
    sweeper = module.Sweeper(ratings, Penalty())
    draw = np.random.default_rng(0).random((ratings.n_guidelines, 2, 4))
    users = np.zeros((ratings.n_users, 4))
    start = Parameters(np.full(4, 0.5), users, users[:, None], draw[:, 0], draw[:, 1:])
    with jax.enable_x64(True):
        terms, state = replace(sweeper.terms, tolerance=tolerance), module.first_state(start)
        while (np.asarray(state.residual) > tolerance).any():
            state = module._sweeps_of_few(terms, np.int32(1), state)
            yield terms, jax.tree.map(np.array, state)


def test_an_extrapolation_changes_no_sign_under_a_lasso():
    extrapolated = jax.jit(module.extrapolated)
    for terms, state in states(simulated()[0], 1e-9):
        with jax.enable_x64(True):
            guess = extrapolated(terms, state)
        np.testing.assert_array_equal(np.sign(guess.embedding), np.sign(state.image.embedding))


def test_rounding_of_the_loss_near_a_minimum_ends_no_extrapolation():
    steps = [s.steps[s.residual < 1e-7] for _, s in states(simulated()[0], 1e-11)]
    assert sum(map(len, steps)) > 10
    assert all((s > 0).all() for s in steps)
