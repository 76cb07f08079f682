"""The model behaves as scikit-learn's do, and is the fit itself."""

import doctest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aggregation import BridgingModel, InputError, Settings, fit
from aggregation.model import estimator


@pytest.fixture(scope="module")
def table(world):
    ratings, _ = world
    table = np.full((ratings.n_users, ratings.n_guidelines), np.nan)
    table[ratings.user, ratings.guideline] = ratings.helpful
    return table


@pytest.fixture(scope="module")
def fitted(table):
    return BridgingModel().fit(table)


def test_it_is_the_fit_itself(world, fitted):
    found = fit(world[0], settings=Settings())
    assert fitted.loss_ == found.objective
    assert fitted.converged_
    np.testing.assert_array_equal(
        fitted.guideline_intercepts_, found.parameters.guideline_intercept
    )


def test_people_it_knows_stand_where_they_stood(table, fitted):
    np.testing.assert_allclose(fitted.transform(table), fitted.user_embeddings_, atol=1e-4)
    some = fitted.transform(table[5:25])
    np.testing.assert_allclose(some, fitted.user_embeddings_[5:25], atol=1e-4)


def test_it_predicts_what_the_parameters_say(table, fitted):
    by_hand = (
        fitted.mu_
        + fitted.user_intercepts_[:, None]
        + fitted.guideline_intercepts_
        + fitted.user_embeddings_ @ fitted.guideline_embeddings_.T
    )
    np.testing.assert_allclose(fitted.predict(table), by_hand, atol=1e-4)


def test_it_can_be_cloned_set_and_put_into_a_pipeline(table):
    model = clone(BridgingModel(dimensions=2)).set_params(embedding_penalty=0.05)
    assert model.get_params() == {
        "intercept_penalty": 0.15,
        "embedding_penalty": 0.05,
        "dimensions": 2,
        "random_state": 0,
    }
    places = make_pipeline(BridgingModel(), StandardScaler()).fit_transform(table)
    assert places.shape == (len(table), 1)
    assert places.std() == pytest.approx(1)


def test_what_cannot_be_is_refused(table, fitted):
    with pytest.raises(NotFittedError):
        BridgingModel().transform(table)
    with pytest.raises(InputError, match="the model"):
        fitted.transform(table[:, :-1])
    for bad in (table * 3, table * np.nan):
        with pytest.raises(InputError, match=r"outside \[0, 1\]"):
            BridgingModel().fit(bad)
    with pytest.raises(InputError, match="1 axes"):
        BridgingModel().fit(table[0])


def test_the_example_in_the_docstring_runs():
    found = doctest.testmod(estimator)
    assert (found.failed, found.attempted) == (0, 3)
