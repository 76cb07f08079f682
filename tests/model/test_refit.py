"""Refits with other weights are fits with these weights."""

from dataclasses import replace

import numpy as np
import pytest
from deliberations import at_most, one_descent

from aggregation import ALIGNED, InputError, Parameters, Penalty, fit, loss, refit


def test_refits_are_fits_with_those_weights(world, optimum):
    ratings, _ = world
    weights = np.random.default_rng(4).poisson(1.0, (len(ratings), 11)).astype(float)
    weights[:, 0] = 1
    weights[:, 1] = 2.5  # the scale of the weights means nothing
    weights[ratings.user == 7, 2] = 0
    weights[ratings.guideline == 3, 4] = 0
    found = refit(ratings, weights, optimum.parameters)
    assert found.converged.all()
    assert found.kkt_residual.max() <= 1e-6
    for r in (0, 1):
        assert found.objective[r] == pytest.approx(optimum.objective, rel=1e-9)
    assert found.parameters.user_intercept[7, 2] == 0
    assert not found.parameters.user_embedding[7, :, 2].any()
    assert found.parameters.guideline_intercept[3, 4] == 0
    assert not found.parameters.guideline_embedding[3, :, 4].any()
    for r in range(11):
        p = Parameters(*(x[..., r] for x in found.parameters.arrays()))
        weighted = replace(ratings, weight=weights[:, r])
        assert float(loss(p, weighted, ALIGNED)) == pytest.approx(found.objective[r], rel=1e-12)
    for r in (2, 10):  # one of each batch
        weighted = replace(ratings, weight=weights[:, r])
        alone = fit(weighted, settings=one_descent(), warm_start=optimum.parameters)
        assert alone.objective == pytest.approx(found.objective[r], rel=1e-9)


def test_a_guideline_whose_ratings_weigh_nothing_is_zero_under_squares_too(world, optimum):
    ratings, _ = world
    weights = np.ones((len(ratings), 1))
    weights[ratings.guideline == 3] = 0
    found = refit(ratings, weights, optimum.parameters, Penalty(norm="l2", per="parameter"))
    assert found.converged.all()
    assert found.parameters.guideline_intercept[3] == 0
    assert not found.parameters.guideline_embedding[3].any()


def test_a_refit_does_not_depend_on_its_neighbours(world, optimum):
    ratings, _ = world
    weights = np.random.default_rng(5).poisson(1.0, (len(ratings), 9)).astype(float)
    together = refit(ratings, weights, optimum.parameters).parameters
    alone = refit(ratings, weights[:, [8]], optimum.parameters).parameters
    for a, b in zip(together.arrays(), alone.arrays(), strict=True):
        np.testing.assert_allclose(a[..., 8], b[..., 0], atol=1e-6)


def test_weights_of_users_are_those_of_each_of_their_ratings(world, optimum):
    ratings, _ = world
    weights = np.random.default_rng(6).poisson(1.0, (ratings.n_users, 3)).astype(float)
    by_user = refit(ratings, weights, optimum.parameters)
    by_rating = refit(ratings, weights[ratings.user], optimum.parameters)
    assert by_user.objective.tobytes() == by_rating.objective.tobytes()
    assert by_user.objective.shape == (3,)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: -w, "negative or not a number"),
        (lambda w: np.where(np.arange(len(w)) == 3, np.nan, w), "negative or not a number"),
        (lambda w: np.where(np.arange(len(w)) == 3, np.inf, w), "negative or not a number"),
        (lambda w: 0 * w, "all weights are 0"),
    ],
    ids=["negative", "nan", "infinite", "zero"],
)
def test_weights_that_cannot_weigh_are_refused(world, optimum, spoil, says):
    ratings, _ = world
    weight = spoil(np.ones(len(ratings)))
    with pytest.raises(InputError, match=says):
        fit(replace(ratings, weight=weight))
    with pytest.raises(InputError, match=says):
        refit(ratings, weight[:, None], optimum.parameters)


def test_weights_of_another_shape_are_refused(world, optimum):
    ratings, _ = world
    n = len(ratings)
    for shape in ((n - 1,), (n, 1)):
        with pytest.raises(InputError, match="weight has shape"):
            fit(replace(ratings, weight=np.ones(shape)))
    for shape in ((n,), (n - 1, 2), (n, 0), (n, 2, 2)):
        with pytest.raises(InputError, match=r"weights have shape .* give \[\d+, R\] for"):
            refit(ratings, np.ones(shape), optimum.parameters)


def test_a_start_that_is_short_or_holds_nan_is_refused(world, optimum):
    ratings, p = world[0], optimum.parameters
    weights = np.ones((len(ratings), 2))
    short = replace(p, user_intercept=p.user_intercept[1:], user_embedding=p.user_embedding[1:])
    with pytest.raises(InputError, match=r"near\.user_intercept has shape"):
        refit(ratings, weights, short)
    unknown = replace(p, guideline_embedding=np.full_like(p.guideline_embedding, np.nan))
    with at_most(60), pytest.raises(InputError, match=r"near\.guideline_embedding .* not finite"):
        refit(ratings, weights, unknown)


@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_that_overflow_end_with_an_error(world, optimum):
    ratings, _ = world
    weights = np.full((len(ratings), 1), 1e308)
    with at_most(120), pytest.raises(InputError, match="the loss is not finite"):
        refit(ratings, weights, optimum.parameters)
